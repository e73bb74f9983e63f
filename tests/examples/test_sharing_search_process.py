"""Whole searches by `examples/sharing_search.py`, one in its own process."""

import json
import os
import re

import pytest
import tensorflow as tf

pytestmark = pytest.mark.slow

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


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("search") / "digits"


@pytest.fixture(scope="module")
def printed(output_dir, run_main, sharing_search):
    """What a search over two tasks, with a memory, prints."""
    return run_main(sharing_search, f"--output_dir={output_dir}", *TASKS)


@pytest.fixture(scope="module")
def search(printed, output_dir):
    del printed
    return json.loads((output_dir / "search.json").read_text())


def test_points_are_those_asked_for_and_those_always_tried(search):
    points = search["points"]
    found = [point["branch_at"] for point in points]
    assert found == [0.0, "stage1", "stage2", 1.0]
    shares = [point["layers"] for point in points]
    assert shares == pytest.approx([0, 1 / 3, 2 / 3, 1])
    for point in points:
        assert point["calibrated"] is True
        assert len(point["similarity"]) == 2
        assert 0 <= point["accuracy"] <= point["task_aware_accuracy"] <= 1


def test_choice_is_the_deepest_as_everything_is_tolerated(search):
    assert search["tolerance"] == 0.999
    assert search["chosen"] == 1.0


@pytest.mark.usefixtures("search")
def test_files_are_written_and_nothing_else(output_dir):
    assert set(os.listdir(output_dir)) == FILES | COSTS


def test_table_is_printed_and_written(printed, output_dir):
    text = (output_dir / "search.txt").read_text()
    assert text in printed
    header, *rows = text.split("\n\n")[0].splitlines()
    assert header.startswith("branch at")
    names = [row.split()[0] for row in rows]
    assert names == ["0.0", "stage1", "stage2", "1.0"]
    assert "Chosen: 1.0, 100 % of the layers" in text
    last = printed.splitlines()[-1]
    assert last == f"Picture: {output_dir / 'search.png'}"


def test_cost_is_that_of_the_chosen_point(search, output_dir):
    cost = json.loads((output_dir / "cost.json").read_text())
    assert cost == search["points"][-1]["cost"]
    assert cost["branch_at"] == 1.0
    text = (output_dir / "cost.txt").read_text()
    assert "all layers but the classifier" in text


@pytest.mark.usefixtures("search")
def test_picture_is_a_png_file(output_dir):
    picture = tf.io.decode_png((output_dir / "search.png").read_bytes())
    assert min(picture.shape[:2]) > 400


@pytest.mark.usefixtures("search")
def test_saved_base_knows_the_first_task_alone(output_dir):
    model = tf.keras.models.load_model(output_dir / "base.keras")
    assert model.num_classes == 4
    assert model.branch_at == "stage2" and len(model.heads) == 1


def test_epochs_of_base_and_of_branches_are_told_apart(printed):
    """One of the base; two of each of 2 tasks at 4 points."""
    epochs = re.findall(r"training of (.*) (\d/\d)", printed)
    branches = 8 * [("a branch", "1/2"), ("a branch", "2/2")]
    assert epochs == [("the base", "1/1"), *branches]


# Classes of the first task held out.


@pytest.fixture(scope="module")
def demo_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("search") / "demo"


@pytest.fixture(scope="module")
def demo(demo_dir, run_process):
    """A finished search on two held-out classes, without a memory."""
    process = run_process(
        "sharing_search.py", f"--output_dir={demo_dir}", *DEMO
    )
    assert process.returncode == 0, process.stderr
    return json.loads((demo_dir / "search.json").read_text())


def test_demo_is_one_task_of_the_classes_held_out(demo, demo_dir):
    model = tf.keras.models.load_model(demo_dir / "base.keras")
    assert model.num_classes == 4
    for point in demo["points"]:
        assert point["calibrated"] is False
        assert len(point["similarity"]) == 1
        assert [row["name"] for row in point["cost"]["rows"]] == [
            "base",
            "branch 1",
        ]


def test_demo_tries_the_branch_point_of_train_as_well(demo):
    assert [p["branch_at"] for p in demo["points"]] == [0.0, "stage2"]


def test_costs_are_written_where_there_is_a_choice(demo, demo_dir):
    chosen = demo["chosen"] is not None
    assert set(os.listdir(demo_dir)) == FILES | (COSTS if chosen else set())
