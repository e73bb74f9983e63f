"""Several runs in one picture and one table, each under its own name."""

import importlib.util
import pathlib

import pytest
from absl import app
from absl.testing import flagsaver

from keras_incremental import reports

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "compare.py"


@pytest.fixture
def write_runs(tmp_path, make_results):
    """Returns a function that writes runs into folders of their own."""

    def write(**runs):
        for name, settings in runs.items():
            reports.write_results(make_results(**settings), tmp_path / name)
        return [tmp_path / name for name in runs]

    return write


def test_methods_name_the_runs_that_differ_in_it(write_runs, make_results):
    folders = write_runs(b={"method": "joint"}, a={"method": "eeil"})
    runs = reports.load_runs(folders)
    assert list(runs) == ["joint", "eeil"]
    assert runs["eeil"] == make_results(method="eeil")


def test_runs_that_differ_in_the_seed_stay_apart(write_runs):
    folders = write_runs(a={"seed": 0}, b={"seed": 1}, c={"method": "joint"})
    assert list(reports.load_runs(folders)) == [
        "eeil, seed 0",
        "eeil, seed 1",
        "joint",
    ]


def test_runs_that_differ_in_the_data_set_stay_apart(write_runs):
    folders = write_runs(a={}, b={"dataset": "cifar100", "seed": 1})
    names = list(reports.load_runs(folders))
    assert names == ["eeil, digits", "eeil, cifar100"]


def test_folders_name_the_runs_that_agree_in_all_else(write_runs):
    folders = write_runs(small={}, large={}, other={"seed": 3})
    assert list(reports.load_runs(map(str, folders))) == [
        "eeil, seed 0, small",
        "eeil, seed 0, large",
        "eeil, seed 3",
    ]


def test_folders_of_one_name_are_named_with_their_parents(
    tmp_path, make_results
):
    for parent in ("x", "y"):
        reports.write_results(make_results(), tmp_path / parent / "out")
    folders = [tmp_path / "x" / "out", tmp_path / "y" / "out"]
    names = list(reports.load_runs(folders))
    assert names == ["eeil, x/out", "eeil, y/out"]


def test_one_folder_twice_is_one_run(write_runs):
    (folder,) = write_runs(a={})
    assert len(reports.load_runs([folder, folder / ".." / "a"])) == 1


def test_no_folder_is_an_error():
    with pytest.raises(ValueError, match="at least one folder"):
        reports.load_runs([])


def test_compare_writes_the_picture_and_returns_the_runs(write_runs, tmp_path):
    folders = write_runs(a={"seed": 0}, b={"seed": 1})
    runs = reports.compare(folders, tmp_path / "both.png")
    assert runs == reports.load_runs(folders)
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def script():
    """The module `examples/compare.py`, its flags at their defaults."""
    spec = importlib.util.spec_from_file_location("compare_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.FLAGS.mark_as_parsed()
    return module


def test_script_prints_a_table_in_percent(script, write_runs, tmp_path, capsys):
    folders = write_runs(
        a={"accuracies": (0.9, 0.6)},
        b={"method": "joint", "seed": 12, "seen": (4,), "accuracies": (1.0,)},
    )
    with flagsaver.flagsaver(output=str(tmp_path / "c.png")):
        script.main(["compare.py", *map(str, folders)])
    lines = capsys.readouterr().out.splitlines()
    # eeil: (90 + 60) / 2 = 75, forgetting 90 - 60 = 30.
    assert lines[:3] == [
        "name   method  seed  average  after first  final  forgetting",
        "eeil   eeil       0     75.0         60.0   60.0        30.0",
        "joint  joint     12    100.0            -  100.0         0.0",
    ]
    assert (tmp_path / "c.png").is_file()


def test_script_without_runs_says_how_to_call_it(script):
    with pytest.raises(app.UsageError, match="--output_dir"):
        script.main(["compare.py"])


def test_script_names_the_folder_that_is_no_run(script, tmp_path):
    with pytest.raises(app.UsageError, match=f"{tmp_path}.*no results.json"):
        script.main(["compare.py", str(tmp_path)])


def test_script_names_the_picture_it_cannot_write(script, write_runs):
    (folder,) = write_runs(a={})
    with (
        flagsaver.flagsaver(output="table.csv"),
        pytest.raises(app.UsageError, match="'csv' is not supported"),
    ):
        script.main(["compare.py", str(folder)])


def test_seeds_of_one_setting_are_averaged_with_their_deviation(script):
    def run(seed, average, **flags):
        return {
            "dataset": "digits",
            "method": "eeil",
            "seed": seed,
            "flags": {"seed": seed, **flags},
            "average_incremental_accuracy": average,
            "average_incremental_accuracy_after_first": None,
            "final_accuracy": 0.5,
            "forgetting": 0.25,
        }

    runs = {
        "a": run(0, 0.90),
        "b": run(1, 0.92),
        "c": run(2, 0.94),
        "other": run(0, 0.1, finetune_epochs=0),
    }
    # Mean 0.92, deviation sqrt((0.02^2 + 0 + 0.02^2) / 2) = 0.02.
    (line,) = script.spread(runs)
    assert line.startswith("eeil on digits, 3 seeds: average 92.0 ± 2.0, ")
    assert "after first -, final 50.0 ± 0.0, forgetting 25.0 ± 0.0" in line
