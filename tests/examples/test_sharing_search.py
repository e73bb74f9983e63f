"""`examples/sharing_search.py`: what it searches, writes and refuses.

The search itself is replaced by a curve that was made by hand.
"""

import json
import os
import pathlib
import re
import sys

import pytest
import tensorflow as tf
from absl import flags

import keras_incremental as ki
from keras_incremental.sharing import SharingCurve, SharingPoint

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("small_is_tiny")

SMALL = [
    "--dataset=digits",
    "--method=partial_sharing",
    "--branch_at=stage2",
    "--samples_per_class=15",
    "--batch_size=32",
    "--epochs=1",
    "--seed=3",
]
TASKS = [
    *SMALL,
    "--classes_per_task=4,3,3",
    "--memory=40",
    "--points=stage1,1",
    "--tolerance=0.999",
    "--branch_epochs=2",
]
DEMO = [
    *SMALL,
    "--classes_per_task=6,4",
    "--demo_classes=2",
    "--points=0",
    "--tolerance=0",
]
FILES = {"search.json", "search.png", "search.txt", "base.keras"}
COSTS = {"cost.json", "cost.txt"}


def point_at(model, branch_at, accuracy):
    """What a search would have found at a branch point."""
    candidate = model.with_branch_at(branch_at)
    network = ki.networks.BranchedNetwork.on(candidate.network)
    candidate.network = network.with_branch()
    candidate.add_classes([100])
    return SharingPoint(
        branch_at=branch_at,
        layers=candidate.network.shared_layers,
        task_aware_accuracy=accuracy,
        uncalibrated_accuracy=0.5,
        accuracy=0.6,
        uncalibrated_accuracy_of_all=0.7,
        accuracy_of_all=0.8,
        calibrated=True,
        similarity=(0.5, 0.25),
        seconds_per_epoch=2.0,
        seconds=8.0,
        cost=ki.cost.report(candidate, batch_size=1, measure=False),
    )


class FakeSearch:
    """Takes note of its arguments and gives the last point `accuracy`."""

    def __init__(self, accuracy):
        self.accuracy = accuracy

    def __call__(self, model, tasks, points, tolerance, **settings):
        self.model, self.tasks, self.points = model, tasks, points
        self.settings = settings
        found = [(0.0, 0.9), (points[-1], self.accuracy)]
        return SharingCurve(
            tuple(point_at(model, *each) for each in found), tolerance
        )


def searched(args, accuracy, sharing_search, run_main):
    """Runs the script with a search made by hand; returns it and its output."""
    search = FakeSearch(accuracy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ki.sharing, "search", search)
        return search, run_main(sharing_search, *args)


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("search") / "digits"


@pytest.fixture(scope="module")
def finished(output_dir, sharing_search, run_main, small_is_tiny):
    """A search over two tasks with a memory, and what the script printed."""
    del small_is_tiny
    args = [f"--output_dir={output_dir}", *TASKS, "--width=0.5"]
    args += ["--augment=crop_flip", "--copies=2"]
    return searched(args, 0.85, sharing_search, run_main)


def test_a_search_is_set_up_as_train_is(sharing_search, train, monkeypatch):
    monkeypatch.setattr(train, "set_up", lambda: sys.exit("set up"))
    with pytest.raises(SystemExit, match="set up"):
        sharing_search.main(["sharing_search.py"])


@pytest.mark.slow
def test_what_is_searched_is_what_the_flags_say(finished):
    search, _ = finished
    assert search.points == ["stage1", 1.0, "stage2"]
    assert [len(task.labels) for task in search.tasks] == [3, 3]
    settings = search.settings
    assert settings["epochs"] == 2
    assert settings["batch_size"] == 32
    assert settings["seed"] == 3
    assert settings["method"] == ki.PartialSharing(width=0.5, copies=2)
    assert isinstance(settings["augment"], ki.augmentation.CropFlip)


@pytest.mark.slow
def test_base_is_trained_on_the_first_task_and_fills_the_memory(finished):
    search, printed = finished
    assert search.model.num_classes == 4
    assert search.model.branch_at == "stage2"
    memory = search.settings["memory"]
    assert sorted(memory.labels) == sorted(search.model.labels)
    assert len(memory) == 40
    assert not set(search.model.labels) & set(search.tasks[0].labels)
    # --epochs=1 is of the base, --branch_epochs=2 of the others.
    assert "training of the base 1/1" in printed


@pytest.mark.usefixtures("finished")
def test_files_are_written_and_nothing_else(output_dir):
    assert set(os.listdir(output_dir)) == FILES | COSTS


@pytest.mark.slow
def test_table_is_printed_and_written(finished, output_dir):
    _, printed = finished
    text = (output_dir / "search.txt").read_text()
    assert text in printed
    assert "Chosen: 'stage2', 67 % of the layers" in text
    last = printed.splitlines()[-1]
    assert last == f"Picture: {output_dir / 'search.png'}"
    written = json.loads((output_dir / "search.json").read_text())
    assert (written["tolerance"], written["chosen"]) == (0.999, "stage2")


@pytest.mark.usefixtures("finished")
def test_cost_is_that_of_the_chosen_point(output_dir):
    search = json.loads((output_dir / "search.json").read_text())
    cost = json.loads((output_dir / "cost.json").read_text())
    assert cost == search["points"][-1]["cost"]
    assert cost["branch_at"] == "stage2"
    assert "stage2" in (output_dir / "cost.txt").read_text()


@pytest.mark.usefixtures("finished")
def test_picture_is_a_png_file(output_dir):
    picture = tf.io.decode_png((output_dir / "search.png").read_bytes())
    assert min(picture.shape[:2]) > 400


@pytest.mark.usefixtures("finished")
def test_saved_base_knows_the_first_task_alone(output_dir):
    model = tf.keras.models.load_model(output_dir / "base.keras")
    assert model.num_classes == 4
    assert model.branch_at == "stage2"
    assert len(model.heads) == 1


@pytest.mark.usefixtures("finished")
def test_second_search_into_a_folder_fails_and_leaves_the_first(
    output_dir, parse, sharing_search
):
    before = (output_dir / "search.json").read_bytes()
    arguments = parse(*TASKS, f"--output_dir={output_dir}")
    with pytest.raises(SystemExit, match=r"search\.json of another run"):
        sharing_search.main(arguments)
    assert (output_dir / "search.json").read_bytes() == before


# Classes of the first task held out.


@pytest.mark.slow
def test_without_a_choice_there_is_no_cost(
    tmp_path, sharing_search, run_main, monkeypatch
):
    """As in a demo without a memory, whose base is not trained here."""

    def train_base(model, base, incremental):
        assert incremental.memory is None
        model.add_classes(base.labels)

    monkeypatch.setattr(sharing_search, "train_base", train_base)
    args = [f"--output_dir={tmp_path / 'demo'}", *DEMO]
    search, printed = searched(args, 0.5, sharing_search, run_main)
    (task,) = search.tasks
    assert (search.model.num_classes, len(task.labels)) == (4, 2)
    assert search.points == [0.0, "stage2"]
    assert search.settings["memory"] is None
    assert search.settings["epochs"] == 1  # of --epochs
    assert set(os.listdir(tmp_path / "demo")) == FILES
    assert "No branch point is within" in printed


def test_base_and_demo_share_the_classes_of_the_first_task(
    parse, sharing_search, train
):
    parse(*DEMO)
    scenario = train.make_scenario()
    base, (demo,) = sharing_search.base_and_tasks(scenario)
    assert len(demo.labels) == 2
    assert sorted(base.labels + demo.labels) == sorted(scenario[0].labels)
    expected = ki.sharing.hold_out(scenario[0], 2, seed=3)
    assert [base.labels, demo.labels] == [task.labels for task in expected]


def test_without_demo_the_later_tasks_are_the_new_ones(
    parse, sharing_search, train
):
    parse(*TASKS)
    scenario = train.make_scenario()
    base, tasks = sharing_search.base_and_tasks(scenario)
    found = [task.labels for task in (base, *tasks)]
    assert found == [task.labels for task in scenario]


# What is refused.

REFUSED = {
    "unknown layer": (["--points=0.5,stage7"], "'stage7'.*'stage2'"),
    "unknown layer of train": (["--branch_at=stage7"], "'stage7'.*'stage2'"),
    "fraction above 1": (["--points=2"], "branch_at=2.0; expected a fraction"),
    "single task": (
        ["--classes_per_task=10"],
        "leaves no new task.*--demo_classes",
    ),
    "all classes held out": (["--demo_classes=4"], "classes=4 of a task of 4"),
    "memory too small": (["--memory=9"], "Use capacity >= 10"),
    "memory too small for the demo": (
        ["--memory=3", "--demo_classes=1"],
        "Use capacity >= 4",
    ),
    "no data": (["--dataset=cifar1000"], "no data set 'cifar1000'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_refused_in_one_line_before_training(
    case, parse, sharing_search, monkeypatch
):
    args, message = REFUSED[case]
    monkeypatch.setattr(sharing_search, "train_base", _never)
    arguments = parse(*TASKS, *args)
    with pytest.raises(SystemExit) as refused:
        sharing_search.main(arguments)
    text = str(refused.value)
    assert re.search(rf"^sharing_search\.py: .*{message}", text), text
    assert "\n" not in text


def test_another_method_is_refused_before_data_is_read(
    parse, sharing_search, train, monkeypatch
):
    monkeypatch.setattr(train, "make_scenario", _never)
    arguments = parse("--dataset=digits", "--method=eeil", "--memory=40")
    with pytest.raises(SystemExit, match=r"--method=partial_sharing and --bra"):
        sharing_search.main(arguments)


def _never(*args, **kwargs):
    pytest.fail("training began")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--tolerance=1"], "tolerance.*below 1"),
        (["--tolerance=-0.1"], "tolerance"),
        (["--tolerance=nan"], "tolerance"),
        (["--demo_classes=-1"], "demo_classes"),
        (["--branch_epochs=0"], "branch_epochs"),
        (["--branch_epochs=half"], "branch_epochs.*half"),
    ],
)
@pytest.mark.usefixtures("sharing_search")
def test_parsing_refuses(args, message, parse):
    with pytest.raises(flags.IllegalFlagValueError, match=message):
        parse(*TASKS, *args)


def test_arguments_that_are_no_flags_are_refused(parse, sharing_search):
    arguments = parse(*TASKS, "digits")
    with pytest.raises(SystemExit, match=r"unknown arguments: .*digits"):
        sharing_search.main(arguments)


@pytest.mark.parametrize("suffix", ["digits", "cifar10", "cifar100"])
@pytest.mark.usefixtures("sharing_search")
def test_flagfiles_of_sharing_parse(suffix, parse):
    path = ROOT / "examples" / "configs" / f"sharing_{suffix}.flags"
    assert parse(f"--flagfile={path}") == ["train.py"]
    assert flags.FLAGS["points"].value == ["0.0", "0.25", "0.5", "0.75", "1.0"]
