"""Breaks promises of the package, one at a time, and sees whether a test fails.

    python tests/mutants.py --only=memory --jobs=2

A mutant is a small change of one file that breaks one promise. Each is applied
to a temporary copy of the repository, where the tests that should notice it
run. The mutants are in the files of `tests/mutants/`; those of `core.toml` are
of the parts that train, and all others are of the rest. A mutant has

- `file`: below `keras_incremental/`;
- `old` and `new`: a text that occurs once in the file, and what replaces it;
- `promise`: what the package promises, and the mutant breaks;
- `tests`: the tests that should fail, as pytest takes them: `path` or
  `path::name`. By default those of the file, `tests/<folder>/test_<name>.py`,
  or of its folder if there are none.
"""

import argparse
import concurrent.futures
import dataclasses
import enum
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = "keras_incremental"
# Whatever a test may read; not what a user keeps beside it.
_COPIED = (
    *(PACKAGE, "tests", "examples", "benchmarks", "colab", "docs", ".ci"),
    *("README.md", "CONTRIBUTING.md", "BUILD", "MODULE.bazel", "ruff.toml"),
    *("setup.py", "pyproject.toml", "requirements_lock.txt"),
)
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "node_modules")
_LAST_LINES = 12


class Verdict(enum.Enum):
    """What came of a mutant; only the first is good."""

    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    NOT_FOUND = "old text not found once"
    NO_RUN = "the tests did not run"


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of one file; the fields are described above."""

    file: str
    old: str
    new: str
    promise: str
    tests: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What `--only` looks in."""
        return f"{self.file}: {self.promise}"

    def selection(self, root=ROOT) -> list[str]:
        """Returns the tests that should fail, as pytest takes them."""
        if self.tests:
            return list(self.tests)
        path = pathlib.PurePath("tests", self.file)
        own = path.with_name(f"test_{path.name}")
        return [str(own if (root / own).is_file() else path.parent)]

    def applied(self, text: str) -> str | None:
        """Returns the changed text; `None` if `old` does not occur once."""
        if text.count(self.old) != 1:
            return None
        return text.replace(self.old, self.new)


def read_mutants(folder=ROOT / "tests/mutants") -> list[Mutant]:
    """Returns the mutants of all files of a folder."""
    mutants = []
    for path in sorted(folder.glob("*.toml")):
        for fields in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]:
            tests = tuple(fields.pop("tests", ()))
            mutants.append(Mutant(**fields, tests=tests))
    return mutants


def run(mutant: Mutant, unchanged=False, root=ROOT) -> tuple[Verdict, str]:
    """Runs a mutant's tests on a temporary copy that it has changed.

    Args:
        mutant: the change.
        unchanged: whether to leave the change out; its tests should then pass.
        root: of the repository.

    Returns:
        The verdict, and the end of pytest's output.
    """
    with tempfile.TemporaryDirectory(prefix="mutant_") as folder:
        copy = pathlib.Path(folder)
        _copy_repository(root, copy)
        path = copy / PACKAGE / mutant.file
        text = mutant.applied(path.read_text(encoding="utf-8"))
        if text is None:
            return Verdict.NOT_FOUND, ""
        if not unchanged:
            path.write_text(text, encoding="utf-8")
        return _run_tests(mutant, copy)


def _copy_repository(root: pathlib.Path, copy: pathlib.Path) -> None:
    for name in _COPIED:
        if (root / name).is_dir():
            shutil.copytree(root / name, copy / name, ignore=_NOT_COPIED)
        elif (root / name).exists():
            shutil.copy(root / name, copy / name)


def _run_tests(mutant: Mutant, copy: pathlib.Path) -> tuple[Verdict, str]:
    options = ["-x", "-q", "-p", "no:cacheprovider"]
    if mutant.tests:  # slow ones as well
        options += ["-m", ""]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *mutant.selection(copy)],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    verdicts = {0: Verdict.SURVIVED, 1: Verdict.CAUGHT}
    verdict = verdicts.get(done.returncode, Verdict.NO_RUN)
    return verdict, "\n".join(done.stdout.splitlines()[-_LAST_LINES:])


def _parse(arguments) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        help="mutants whose file and promise hold this text; may be repeated",
    )
    parser.add_argument("--jobs", type=int, default=1, help="run at once")
    parser.add_argument("--list", action="store_true", help="run nothing")
    parser.add_argument(
        "--unchanged",
        action="store_true",
        help="leave the changes out: all should survive",
    )
    return parser.parse_args(arguments)


def main(arguments=None) -> int:
    """Runs the mutants; returns how many were not caught."""
    options = _parse(arguments)
    mutants = [
        mutant
        for mutant in read_mutants()
        if not options.only or any(part in mutant.name for part in options.only)
    ]
    if options.list:
        for mutant in mutants:
            print(mutant.name, *mutant.selection(), sep="\n    ")
        return 0
    wanted = Verdict.SURVIVED if options.unchanged else Verdict.CAUGHT
    failed = []

    def run_one(mutant):
        start = time.perf_counter()
        verdict, output = run(mutant, options.unchanged)
        seconds = time.perf_counter() - start
        print(f"{verdict.value} ({seconds:.0f} s): {mutant.name}", flush=True)
        if verdict is not wanted:
            failed.append(mutant)
            print(output, flush=True)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run_one, mutants))
    print(f"{len(mutants)} mutants, {len(failed)} not {wanted.value}.")
    for mutant in failed:
        print(f"  {mutant.name}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
