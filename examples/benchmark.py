r"""Runs several methods with several seeds: one table, two pictures.

    python examples/benchmark.py --seeds=0,1,2 --output_dir=out/digits \
        --runs=examples/configs/eeil_digits.flags,\
    examples/configs/finetune_digits.flags -- --epochs=20

Each run is train.py with a flagfile, a seed and the flags after `--`, in a
process of its own, and goes to <output_dir>/<flagfile's name>/seed_<seed>/. The
same command goes on where it was stopped. The output folder gets table.md,
table.json, curves.png and bytes.png, with --learning_rates rates.json as well.
--table_only makes them of what is there, runs of train.py in such folders
included.
"""

# ruff: noqa: I001  (train.py sets what TensorFlow reads when it is imported)
import concurrent.futures
import dataclasses
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import quick_help  # noqa: F401 (before TensorFlow is imported)
import first_task
import stored_bytes
import train

from absl import app, flags

from keras_incremental import reports
from keras_incremental.files import atomic_write

_RUNS = flags.DEFINE_list("runs", [], "Flagfiles of train.py, one a method.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds, one run each.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Runs at once.", lower_bound=1)
_THREADS = flags.DEFINE_integer(
    "threads", None, "TensorFlow's threads, of each run.", lower_bound=1
)
_TABLE_ONLY = flags.DEFINE_bool(
    "table_only", False, "Run nothing: table and pictures of what is there."
)
_EQUAL_BYTES = flags.DEFINE_integer(
    "equal_bytes",
    None,
    "As many exemplars as a method's last network leaves room for, in bytes.",
    lower_bound=1,
)
_LEARNING_RATES = flags.DEFINE_list(
    "learning_rates",
    [],
    "Each method takes the best of them on a held-out tenth of the first task.",
)
_EXAMPLES = pathlib.Path(__file__).parent
_BACKUP = "backup"
_LOG = "log.txt"
_BOUNDS = ("finetune", "joint")


@dataclasses.dataclass(frozen=True)
class Run:
    """A process, and what it leaves behind.

    Attributes:
        name: Of the method, as in the table.
        detail: What tells it from others of the name, `seed 0`.
        script: The module that it runs.
        args: Its command line.
        folder: Its output folder.
        record: The file in it that holds its flags at the end.
        flags: Those that it is to hold.
    """

    name: str
    detail: str
    script: str
    args: tuple[str, ...]
    folder: pathlib.Path
    record: str
    flags: dict = dataclasses.field(hash=False)

    def is_complete(self) -> bool:
        """Whether it has been run to its end, with the same flags.

        Raises:
            ValueError: for results of other flags, or damaged ones.
        """
        if not (self.folder / self.record).exists():
            return False
        if self.record == reports.FILE_NAME:
            results = reports.read_results(self.folder)
        else:
            results = json.loads((self.folder / self.record).read_text())
        there = results.get("flags", {})
        differing = [
            f"--{key}: {there.get(key)!r} there, {self.flags.get(key)!r} now"
            for key in sorted(there.keys() | self.flags.keys())
            if there.get(key) != self.flags.get(key)
        ]
        if differing:
            raise ValueError(
                f"{str(self.folder)!r} holds a run with other flags: "
                f"{'; '.join(differing)}. Choose another --output_dir, or "
                "remove the folder."
            )
        return self.record != reports.FILE_NAME or has_all_tasks(results)


def has_all_tasks(results: dict) -> bool:
    """Whether results are those of a run that has come to its end."""
    seen = results["tasks"][-1]["seen_classes"] if results["tasks"] else 0
    return seen == len(results.get("class_order", ()))


def say(text: str) -> None:
    """Prints a line in one piece, whatever other threads print."""
    print(f"{text}\n", end="", flush=True)


# The plan.


def numbers(flag: str, texts: Sequence[str], kind: type) -> list:
    """Returns the numbers of a flag, each of them once.

    Raises:
        ValueError: for other text, or one number twice.
    """
    try:
        values = [kind(text) for text in texts]
    except ValueError:
        values = []
    if len(set(values)) < len(texts):
        raise ValueError(
            f"--{flag}={','.join(texts)}; expected numbers of type "
            f"{kind.__name__} with commas between, each of them once."
        )
    return values


def read(args: Sequence[str]) -> dict:
    """Parses a command line of train.py; returns the flags in effect.

    Raises:
        ValueError: if train.py would refuse it.
    """
    flags.FLAGS.unparse_flags()
    argv = ["train.py", *args]
    try:
        train.method_flags.define_own(argv)
        rest = flags.FLAGS(argv)[1:]
        if rest:
            raise ValueError(f"unknown arguments: {' '.join(rest)}")
        return json.loads(json.dumps(train.settings(train.make_method())))
    except (ValueError, flags.Error) as error:
        raise ValueError(f"{' '.join(args)}: {error}") from error


def make_run(name, detail, folder, args, script="train") -> Run:
    """Returns a run with the flags that its command line stands for."""
    args = (*args, f"--output_dir={folder}")
    record = first_task.RECORD
    if script == "train":
        args = (*args, f"--backup_dir={folder / _BACKUP}")
        record = reports.FILE_NAME
    return Run(name, detail, script, args, folder, record, read(args))


def by_name(flagfiles: Sequence[str], extra: Sequence[str]) -> dict[str, list]:
    """Returns the flags of each method, by the name of its flagfile.

    Raises:
        ValueError: for no flagfile, two of one name, or two scenarios.
    """
    if not flagfiles:
        raise ValueError(
            "--runs names no flagfile; expected one or more, as in "
            "--runs=examples/configs/eeil_digits.flags."
        )
    methods: dict[str, list] = {}
    scenarios: dict[str, str] = {}
    for path in flagfiles:
        name = pathlib.Path(path).stem
        if name in methods:
            raise ValueError(f"--runs names {name!r} twice; expected it once.")
        methods[name] = [f"--flagfile={path}", *extra]
        read([*methods[name], "--output_dir=out"])
        module = flags.FLAGS.find_module_defining_flag("dataset")
        scenarios[name] = ", ".join(
            f"--{flag.name}={flag.value}"
            for flag in flags.FLAGS.flags_by_module_dict()[module]
            if flag.value is not None
        )
    if len(set(scenarios.values())) > 1:
        lines = [f"{name}: {text}" for name, text in scenarios.items()]
        raise ValueError(
            "--runs has more than one scenario, and a table compares methods "
            f"on one. {'; '.join(lines)}. Give the same flags after `--`."
        )
    return methods


def with_equal_bytes(methods: dict[str, list], limit: int) -> dict[str, list]:
    """Returns the flags with the memory that each network leaves room for."""
    changed, scenario = {}, None
    for name, args in methods.items():
        read([*args, "--output_dir=out"])
        scenario = scenario or train.make_scenario()
        memory = stored_bytes.exemplars_within(limit, scenario)
        changed[name] = [*args, *memory]
        say(f"{name}: {' '.join(memory) or 'no exemplars'}")
    return changed


def with_best_rate(
    methods: dict[str, list], rates: Sequence[float], output_dir, run_missing
) -> dict[str, list]:
    """Returns the flags with each method's best rate on the first task."""
    runs = {
        (name, rate): make_run(
            name,
            f"learning rate {rate}",
            output_dir / name / f"rate_{rate}",
            [*args, f"--learning_rate={rate}", "--seed=0"],
            script="first_task",
        )
        for name, args in methods.items()
        for rate in rates
    }
    run_missing(list(runs.values()))
    found: dict[str, dict] = {name: {} for name in methods}
    for (name, rate), run in runs.items():
        if run.is_complete():
            record = json.loads((run.folder / run.record).read_text())
            found[name][rate] = record["accuracy"]
    changed, table = {}, {}
    for name, accuracies in found.items():
        if not accuracies:
            raise ValueError(
                f"No learning rate could be tried with {name}; see the "
                f"{_LOG} of {output_dir / name}/rate_*."
            )
        best = max(accuracies, key=lambda rate: (accuracies[rate], rate))
        changed[name] = [*methods[name], f"--learning_rate={best}"]
        table[name] = {"accuracies": accuracies, "chosen": best}
        shown = [f"{rate}: {100 * a:.1f}" for rate, a in accuracies.items()]
        say(f"{name}: {', '.join(shown)} -> {best}")
    write_json(table, output_dir / "rates.json")
    return changed


# Processes.


def execute(run: Run, threads: int | None = None) -> str:
    """Runs a process to its end; returns what went wrong, if anything."""
    run.folder.mkdir(parents=True, exist_ok=True)
    count = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    for kind in ("INTRAOP", "INTEROP") if count else ():
        count[f"TF_NUM_{kind}_THREADS"] = str(threads)
    command = [sys.executable, str(_EXAMPLES / f"{run.script}.py"), *run.args]
    log = run.folder / _LOG
    with log.open("ab") as file:
        code = subprocess.run(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **count},
        ).returncode
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in lines[::-1] if line.strip()), "")
        return f"FAILED, exit code {code}: {last.strip()} (see {log})"
    shutil.rmtree(run.folder / _BACKUP, ignore_errors=True)
    return ""


def run_missing(
    runs: Sequence[Run], jobs: int, run_one: Callable[[Run], str]
) -> None:
    """Runs those that are not complete, and says how far it is.

    One that fails does not end the others.
    """
    missing = [run for run in runs if not run.is_complete()]
    started = time.monotonic()

    def start(run):
        say(f"start: {run.name}, {run.detail}")
        return run_one(run)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(start, run): run for run in missing}
        try:
            done = concurrent.futures.as_completed(futures)
            for count, future in enumerate(done, start=1):
                run, problem = futures[future], future.result()
                each = (time.monotonic() - started) / count
                left = datetime.timedelta(
                    seconds=round(each * (len(missing) - count))
                )
                say(
                    f"end: {run.name}, {run.detail}: {problem or 'done'}; "
                    f"{count} of {len(missing)}, about {left} left"
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


# Table and pictures.


def folders_there(output_dir: pathlib.Path) -> list[tuple]:
    """Returns name and folder of all runs in an output folder, in order."""
    return [
        (folder.parent.name, folder)
        for folder in sorted(output_dir.glob("*/seed_*"))
    ]


def check_same_flags(name: str, runs: Sequence[dict]) -> None:
    """Refuses runs of a method that differ in more than the seed."""
    first, *others = [
        {key: value for key, value in run["flags"].items() if key != "seed"}
        for run in runs
    ]
    for other in others:
        keys = first.keys() | other.keys()
        differing = {key for key in keys if first.get(key) != other.get(key)}
        if differing:
            raise ValueError(
                f"The runs of {name!r} differ in --"
                f"{', --'.join(sorted(differing))}; expected the seed alone. "
                "Put runs of other flags into folders of another name."
            )


def write_json(content, path: pathlib.Path) -> None:
    """Writes a file of JSON, whole or not at all."""
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=1)


def write_table(folders: Sequence[tuple], output_dir: pathlib.Path) -> bool:
    """Writes table and pictures; returns whether all runs are complete.

    Args:
        folders: Name of the method and folder of each run.
        output_dir: Where to.

    Raises:
        ValueError: if no run is complete.
    """
    groups: dict[str, list] = {}
    missing = []
    for name, folder in folders:
        there = (folder / reports.FILE_NAME).exists()
        results = reports.read_results(folder) if there else None
        if results and has_all_tasks(results):
            groups.setdefault(name, []).append(results)
        else:
            missing.append(f"- {name}, {folder.name}: not complete")
    if not groups:
        raise ValueError(
            f"{str(output_dir)!r} has no complete run; expected results in "
            "<name>/seed_<seed>/. Run some, or look at their log.txt."
        )
    for name, group in groups.items():
        check_same_flags(name, group)
    text = "\n".join([reports.markdown(groups), *([""] if missing else [])])
    text = "\n".join([text, *missing])
    say(text)
    with atomic_write(output_dir / "table.md", "w") as file:
        file.write(f"{text}\n")
    write_json(reports.summarize(groups), output_dir / "table.json")
    draw(groups, output_dir)
    return not missing


def draw(groups: dict[str, list], output_dir: pathlib.Path) -> None:
    """Draws the runs of each method; the title has the data set's name."""
    short = {
        name.removesuffix(f"_{group[0]['dataset']}"): group
        for name, group in groups.items()
    }
    short = short if len(short) == len(groups) else groups
    bounds = [n for n in short if short[n][0]["method"] in _BOUNDS]
    reports.plot_accuracy(short, output_dir / "curves.png", bounds=bounds)
    reports.plot_bytes(short, output_dir / "bytes.png", bounds=bounds)


def main(argv) -> None:
    """Runs the benchmark; absl calls it."""
    extra, output_dir = argv[1:], pathlib.Path(flags.FLAGS.output_dir)
    flagfiles, limit, jobs = _RUNS.value, _EQUAL_BYTES.value, _JOBS.value
    table_only, threads = _TABLE_ONLY.value, _THREADS.value

    def run_all(runs):
        run_missing(runs, jobs, lambda run: execute(run, threads))

    try:
        seeds = numbers("seeds", _SEEDS.value, int)
        rates = numbers("learning_rates", _LEARNING_RATES.value, float)
        if table_only:
            folders = folders_there(output_dir)
        else:
            methods = by_name(flagfiles, extra)
            output_dir.mkdir(parents=True, exist_ok=True)
            if limit is not None:
                methods = with_equal_bytes(methods, limit)
            if rates:
                methods = with_best_rate(methods, rates, output_dir, run_all)
            runs = [
                make_run(
                    name,
                    f"seed {seed}",
                    output_dir / name / f"seed_{seed}",
                    [*args, f"--seed={seed}"],
                )
                for name, args in methods.items()
                for seed in seeds
            ]
            run_all(runs)
            folders = [(run.name, run.folder) for run in runs]
        if not write_table(folders, output_dir):
            sys.exit(1)
    except (ValueError, OSError) as error:
        sys.exit(f"benchmark.py: {error}")


if __name__ == "__main__":
    app.run(main)
