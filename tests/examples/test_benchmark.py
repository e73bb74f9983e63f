"""`examples/benchmark.py`: tables of methods and seeds, begun and gone on."""

import json
import pathlib
import re
import sys

import pytest
import tensorflow as tf
from absl import flags

import keras_incremental as ki
from keras_incremental import reports

CONFIGS = pathlib.Path(__file__).parents[2] / "examples" / "configs"
EEIL, FINETUNE, JOINT, SHARING = (
    str(CONFIGS / f"{name}_digits.flags")
    for name in ("eeil", "finetune", "joint", "sharing")
)
# Final accuracies of two tasks, by method and seed; the first task has 1.0.
FINAL = {
    ("eeil_digits", 0): 0.5,
    ("eeil_digits", 1): 0.7,
    ("finetune_digits", 0): 0.25,
    ("finetune_digits", 1): 0.25,
}
pytestmark = pytest.mark.usefixtures("small_is_tiny")


@pytest.fixture(scope="module")
def benchmark(train, load):
    """The module `examples/benchmark.py`, on top of `train`."""
    del train
    with load("benchmark") as module:
        yield module


def results_of(run, final, tasks=2):
    """Returns what a run would write: 2 tasks of 5 classes, 100 exemplars."""
    entries = [
        {
            "task": index,
            "seen_classes": 5 * (index + 1),
            "accuracy": accuracy,
            "exemplars": 100 if run.name == "eeil_digits" else 0,
            "train_seconds": 6.0,
            "overhead_seconds": 0.5,
        }
        for index, accuracy in enumerate([1.0, final][:tasks])
    ]
    return reports.with_checksum(
        {
            "dataset": "digits",
            "method": run.flags["method"],
            "seed": run.flags["seed"],
            "class_order": list(range(10)),
            "flags": run.flags,
            "tasks": entries,
            "accuracy_matrix": [[1.0], [final, final]],
            "average_incremental_accuracy": (1.0 + final) / 2,
            "average_incremental_accuracy_after_first": final,
            "final_accuracy": final,
            "forgetting": 1.0 - final,
            "backward_transfer": final - 1.0,
            "parameters": 50_000,
            "exemplar_bytes": 300_000 if run.name == "eeil_digits" else 0,
        }
    )


@pytest.fixture
def runs(benchmark, monkeypatch):
    """Replaces the processes; returns the runs so far, in order."""
    begun = []

    def execute(run, threads=None):
        begun.append(run)
        run.folder.mkdir(parents=True, exist_ok=True)
        if run.script == "first_task":
            accuracy = 0.9 if "rate_0.5" not in str(run.folder) else 0.3
            record = {"flags": run.flags, "accuracy": accuracy}
            (run.folder / run.record).write_text(json.dumps(record))
        else:
            final = FINAL.get((run.name, run.flags["seed"]), 0.5)
            reports.write_results(results_of(run, final), run.folder)
        return ""

    monkeypatch.setattr(benchmark, "execute", execute)
    return begun


@pytest.fixture
def call(benchmark, run_main, tmp_path):
    """Returns a function that calls the script, output in `tmp_path`."""

    def call(*args):
        return run_main(benchmark, f"--output_dir={tmp_path}", *args)

    return call


BOTH = (f"--runs={EEIL},{FINETUNE}", "--seeds=0,1")


def test_table_has_mean_and_sample_deviation_over_seeds(call, runs, tmp_path):
    printed = call(*BOTH, "--", "--epochs=3")
    assert len(runs) == 4
    # Final 50 and 70: mean 60, deviation sqrt(10^2 + 10^2) = 14.1; average
    # (100 + 50) / 2 and (100 + 70) / 2: 80 and 7.1. 4 * 50,000 + 300,000 bytes.
    expected = (
        "| eeil_digits | 0, 1 | 80.0 ± 7.1 | 60.0 ± 14.1 | 60.0 ± 14.1 "
        "| 40.0 ± 14.1 | 100 | 0.50 | 13 |"
    )
    table = (tmp_path / "table.md").read_text()
    assert expected in table.splitlines()
    assert table.strip() in printed
    eeil, finetune = json.loads((tmp_path / "table.json").read_text())
    assert eeil["seeds"] == [0, 1] and eeil["bytes"] == 500_000
    assert eeil["final_accuracy"] == pytest.approx([0.6, 0.02**0.5])
    assert finetune["final_accuracy"] == [0.25, 0.0]
    assert finetune["bytes"] == 200_000
    for name in ("curves.png", "bytes.png"):
        picture = tf.io.decode_png((tmp_path / name).read_bytes())
        assert min(picture.shape[:2]) > 200


def test_pictures_leave_the_name_of_the_data_to_their_title(
    benchmark, monkeypatch, tmp_path
):
    """But for a name that another method would then have as well."""
    drawn = []
    for name in ("plot_accuracy", "plot_bytes"):
        monkeypatch.setattr(
            reports,
            name,
            lambda runs, path, bounds: drawn.append((runs, bounds)),
        )
    groups = {
        "eeil_digits": [{"dataset": "digits", "method": "eeil"}],
        "joint_digits": [{"dataset": "digits", "method": "joint"}],
    }
    benchmark.draw(groups, tmp_path)
    benchmark.draw({**groups, "eeil": groups["eeil_digits"]}, tmp_path)
    names = [(list(runs), bounds) for runs, bounds in drawn]
    assert names[:2] == 2 * [(["eeil", "joint"], ["joint"])]
    assert names[2:] == 2 * [([*groups, "eeil"], ["joint_digits"])]


def test_one_seed_has_no_deviation(call, runs, tmp_path):
    call(f"--runs={EEIL}")
    assert "| eeil_digits | 0 | 75.0 |" in (tmp_path / "table.md").read_text()


def test_flags_and_folders_are_those_of_train(call, runs, train, tmp_path):
    call(f"--runs={EEIL}", "--seeds=4", "--", "--epochs=3")
    (run,) = runs
    assert run.flags["epochs"] == 3 and run.flags["seed"] == 4
    folder = tmp_path / "eeil_digits" / "seed_4"
    assert run.args == (
        f"--flagfile={EEIL}",
        "--epochs=3",
        "--seed=4",
        f"--output_dir={folder}",
        f"--backup_dir={folder / 'backup'}",
    )
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["train.py", *run.args])
    experiment = train.make_experiment()
    assert json.loads(json.dumps(experiment.flags)) == run.flags


def test_complete_runs_are_not_run_again_and_others_go_on(call, runs, tmp_path):
    call(*BOTH)
    (killed,) = [
        r for r in runs if r.name == "eeil_digits" and r.detail[-1:] == "1"
    ]
    reports.write_results(results_of(killed, 0.7, tasks=1), killed.folder)
    runs.clear()
    printed = call(*BOTH)
    assert runs == [killed]
    assert "start: eeil_digits, seed 1" in printed
    assert re.search(r"seed 1: done; 1 of 1, about 0:00:0\d left", printed)
    runs.clear()
    assert call(*BOTH, "--table_only").count("| 0, 1 |") == 2
    assert runs == []


def test_runs_of_other_flags_are_refused_and_named(call, runs, tmp_path):
    call(f"--runs={EEIL}")
    with pytest.raises(SystemExit, match="--epochs: 40 there, 3 now"):
        call(f"--runs={EEIL}", "--", "--epochs=3")
    assert len(runs) == 1


def test_a_crash_ends_no_other_run_and_is_named(
    call, runs, benchmark, monkeypatch, tmp_path, capsys
):
    good = benchmark.execute

    def execute(run, threads=None):
        if run.detail == "seed 0" and run.name == "eeil_digits":
            return "FAILED, exit code 9"
        return good(run)

    monkeypatch.setattr(benchmark, "execute", execute)
    with pytest.raises(SystemExit) as ended:
        call(*BOTH, "--jobs=2")
    assert ended.value.code == 1
    assert len(runs) == 3
    table = (tmp_path / "table.md").read_text()
    assert "| eeil_digits | 1 | 85.0 |" in table
    assert "- eeil_digits, seed_0: not complete" in table


SCRIPT = """
import os, pathlib, sys
print("hello", os.environ.get("TF_NUM_INTRAOP_THREADS"))
sys.exit("no " + "good" if "--fail" in sys.argv else 0)
"""


@pytest.mark.parametrize("fails", [False, True])
def test_a_process_has_its_log_threads_and_end(
    benchmark, monkeypatch, tmp_path, fails
):
    (tmp_path / "train.py").write_text(SCRIPT)
    monkeypatch.setattr(benchmark, "_EXAMPLES", tmp_path)
    folder = tmp_path / "out"
    (folder / "backup").mkdir(parents=True)
    args = ("--fail",) if fails else ()
    run = benchmark.Run("a", "seed 0", "train", args, folder, "results", {})
    problem = benchmark.execute(run, threads=3)
    assert "hello 3" in (folder / "log.txt").read_text()
    # A failed one goes on from its backup.
    assert (folder / "backup").exists() == fails
    expected = "FAILED, exit code 1: no good .*log.txt" if fails else ""
    assert re.match(f"{expected}", problem) and bool(problem) == fails


def test_best_rate_of_the_first_task_is_taken_the_larger_of_equals(
    call, runs, tmp_path
):
    printed = call(f"--runs={EEIL}", "--learning_rates=0.02,0.1,0.5")
    assert "eeil_digits: 0.02: 90.0, 0.1: 90.0, 0.5: 30.0 -> 0.1" in printed
    assert json.loads((tmp_path / "rates.json").read_text()) == {
        "eeil_digits": {
            "accuracies": {"0.02": 0.9, "0.1": 0.9, "0.5": 0.3},
            "chosen": 0.1,
        }
    }
    *rates, last = runs
    assert [run.script for run in runs] == ["first_task"] * 3 + ["train"]
    assert {run.flags["seed"] for run in rates} == {0}
    assert last.flags["learning_rate"] == 0.1
    runs.clear()
    call(f"--runs={EEIL}", "--learning_rates=0.02,0.1,0.5")
    assert runs == []


def test_the_first_task_is_trained_as_train_would_set_it_up(
    benchmark, train, monkeypatch
):
    monkeypatch.setattr(train, "set_up", lambda: sys.exit("set up"))
    with pytest.raises(SystemExit, match="set up"):
        benchmark.first_task.main(["first_task.py"])


def test_a_tenth_of_the_first_task_is_held_out(benchmark):
    images = tf.data.Dataset.range(43).map(lambda i: (i, i % 2))
    kept, out = benchmark.first_task.hold_out(images)
    assert (len(kept), len(out)) == (39, 4)
    both = [int(image) for part in (kept, out) for image, _ in part]
    assert sorted(both) == list(range(43))


def test_equal_bytes_leave_room_for_exemplars_beside_the_network(
    call, runs, train, tmp_path
):
    limit = 60_000
    printed = call(
        f"--runs={EEIL},{FINETUNE},{SHARING}",
        f"--equal_bytes={limit}",
        "--",
        "--classes_per_task=4,3,3",
    )
    backbone = train.BACKBONES["small"]((8, 8, 1), None)
    model = ki.IncrementalClassifier(backbone, capacity=10)
    model.add_classes(range(10))
    single = model.network.count_params()
    memory = {run.name: run.flags["memory"] for run in runs}
    image = 8 * 8  # uint8
    assert memory["eeil_digits"] == (limit - 4 * single) // image
    assert memory["finetune_digits"] is None
    # Two branches: `stage3` of 5 x 4 + 4, a head of 4 x 16 + 16, whose room for
    # 16 classes takes 17 integers.
    branched = single + 2 * (24 + 80 + 17)
    assert memory["sharing_digits"] == (limit - 4 * branched) // image
    assert "finetune_digits: no exemplars" in printed


WRONG = {
    "no flagfile": ([], "--runs names no flagfile"),
    "a flagfile twice": ([f"--runs={EEIL},{EEIL}"], "'eeil_digits' twice"),
    "a missing flagfile": (["--runs=/nowhere/a.flags"], "/nowhere/a.flags"),
    "two scenarios": (
        [f"--runs={EEIL},{SHARING}"],
        "more than one scenario.*classes_per_task=.'4', '3', '3'.",
    ),
    "seeds of words": ([f"--runs={EEIL}", "--seeds=a"], "--seeds=a; expected"),
    "a seed twice": ([f"--runs={EEIL}", "--seeds=1,1"], "each of them once"),
    "a negative seed": ([f"--runs={EEIL}", "--seeds=-1"], "seed"),
    "rates of words": (
        [f"--runs={EEIL}", "--learning_rates=fast"],
        "--learning_rates=fast; expected numbers of type float",
    ),
    "an unknown flag": (
        [f"--runs={EEIL}", "--", "--epoch_count=1"],
        "epoch_count",
    ),
    "words after the flags": ([f"--runs={EEIL}", "--", "many"], "many"),
    "no room": (
        [f"--runs={EEIL}", "--equal_bytes=2600"],
        r"equal_bytes=2600 leaves no room .* 10 classes takes 640",
    ),
    "a memory of each class": (
        [
            f"--runs={SHARING}",
            "--equal_bytes=90000",
            "--",
            "--memory_storage=jpeg",
        ],
        "--memory_storage=jpeg out",
    ),
    "nothing there": (["--table_only"], "has no complete run"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused_before_any_run(case, call, runs):
    args, message = WRONG[case]
    with pytest.raises(SystemExit, match=message) as refused:
        call(*args)
    assert str(refused.value).startswith("benchmark.py: ")
    assert runs == []


def test_runs_of_one_name_differ_in_the_seed_alone(call, runs, tmp_path):
    call(*BOTH)
    folder = tmp_path / "eeil_digits" / "seed_1"
    results = reports.read_results(folder)
    results["flags"]["epochs"] = 2
    reports.write_results(reports.with_checksum(results), folder)
    with pytest.raises(SystemExit, match="'eeil_digits' differ in --epochs"):
        call("--table_only")


@pytest.mark.slow
def test_real_runs_end_in_a_table_and_are_not_run_again(run_process, tmp_path):
    command = [
        "benchmark.py",
        f"--runs={EEIL}",
        "--learning_rates=0.1",
        "--equal_bytes=235000",
        f"--output_dir={tmp_path}",
        "--",
        "--epochs=1",
        "--samples_per_class=20",
    ]
    first = run_process(*command)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("start:") == 2
    (row,) = json.loads((tmp_path / "table.json").read_text())
    assert row["method"] == "eeil_digits"
    assert 235_000 - 64 < row["bytes"] <= 235_000
    assert row["average_incremental_accuracy"][0] > 0
    again = run_process(*command)
    assert again.returncode == 0 and "start:" not in again.stdout
