"""Whole runs of `examples/train.py`, most in processes of their own."""

import json

import pytest
import tensorflow as tf

import keras_incremental as ki

pytestmark = pytest.mark.slow

SHARING = [
    "--dataset=digits",
    "--method=partial_sharing",
    "--branch_at=stage2",
    "--width=0.5",
    "--augment=crop_flip",
    "--copies=2",
    "--classes_per_task=4,3,3",
    "--memory=40",
    "--samples_per_class=20",
    "--batch_size=32",
    "--epochs=2",
    "--seed=3",
]
EEIL = [
    "--classes_per_task=4",
    "--memory=40",
    "--samples_per_class=30",
    "--epochs=2",
    "--finetune_epochs=1",
    "--seed=3",
    "--deterministic",
]


def without_seconds(value):
    """Returns results without the keys that are measured times."""
    if isinstance(value, dict):
        return {
            key: without_seconds(item)
            for key, item in value.items()
            if not key.endswith("_seconds")
        }
    if isinstance(value, list):
        return [without_seconds(item) for item in value]
    return value


@pytest.fixture(scope="module")
def sharing_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("train") / "sharing"


@pytest.fixture(scope="module")
def shared(sharing_dir, run_main, train):
    """A finished run of partial sharing: tasks of 4, 3 and 3 classes."""
    run_main(train, f"--output_dir={sharing_dir}", *SHARING)
    return json.loads((sharing_dir / "results.json").read_text())


def test_sharing_results_have_the_keys_of_all_methods(shared, check_contract):
    check_contract(shared)
    assert shared["method"] == "partial_sharing"
    assert shared["branch_at"] == "stage2"
    assert [task["seen_classes"] for task in shared["tasks"]] == [4, 7, 10]
    assert [task["exemplars"] for task in shared["tasks"]] == [40, 40, 40]
    assert shared["train_function_traces"] <= 2
    given = {"branch_at": "stage2", "width": 0.5, "copies": 2}
    assert {name: shared["flags"][name] for name in given} == given


def test_sharing_results_add_what_each_branch_did(shared):
    for index, task in enumerate(shared["tasks"]):
        aware, among_all = task["task_aware_accuracy"], task["accuracy"]
        assert len(aware) == index + 1
        assert all(0 <= accuracy <= 1 for accuracy in aware)
        assert among_all <= max(aware)
        assert 0 <= task["uncalibrated_accuracy"] <= 1
    base, *branches = shared["tasks"]
    assert base["uncalibrated_accuracy"] == base["accuracy"]
    assert not base.keys() & {"clone_source", "similarity", "calibrated"}
    for index, task in enumerate(branches):
        assert task["calibrated"] is True
        assert task["clone_source"] in range(index + 1)
        assert 0 < task["similarity"] <= 1


def test_sharing_loses_nothing_of_old_tasks(shared):
    """Among its own classes, a task is told as when it was new."""
    first, second, last = (
        task["task_aware_accuracy"] for task in shared["tasks"]
    )
    assert first == last[:1] == second[:1]
    assert second == last[:2]


def test_model_of_a_sharing_run_has_thin_branches(shared, sharing_dir):
    model = tf.keras.models.load_model(sharing_dir / "model.keras")
    assert model.branch_at == "stage2"
    assert sorted(model.labels) == sorted(shared["class_order"])
    # `stage3` of the small network has 64 channels, of half a branch 32.
    widths = [n.output_shape[-1] for n in model.network.networks]
    assert widths == [64, 32, 32]
    memory = ki.ExemplarMemory.load(sharing_dir / "memory")
    assert len(model.classify(memory.samples().take(range(3)))) == 3


def test_deterministic_runs_give_the_same_results(tmp_path, run_process):
    texts = []
    for name in ("first", "second"):
        process = run_process(
            "train.py", f"--output_dir={tmp_path / name}", *EEIL
        )
        assert process.returncode == 0, process.stderr
        text = (tmp_path / name / "results.json").read_text()
        texts.append(without_seconds(json.loads(text)))
        assert "task 2: " in process.stdout
    assert texts[0] == texts[1]


def test_a_method_of_the_user_runs_from_his_folder(
    tmp_path, run_process, monkeypatch
):
    (tmp_path / "mine.py").write_text(
        "import dataclasses\n"
        "import keras_incremental as ki\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Mine(ki.EEIL):\n"
        "    patience: int = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    process = run_process(
        "train.py",
        "--method=mine:Mine",
        "--patience=4",
        "--output_dir=out",
        "--classes_per_task=5",
        "--memory=40",
        "--samples_per_class=20",
        "--epochs=1",
        "--finetune_epochs=1",
    )
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["method"] == "mine:Mine"
    assert results["flags"]["patience"] == 4
    assert [task["epochs"] for task in results["tasks"]] == [1, 2]
    again = run_process("train.py", "--method=mine:Mine", "--help")
    assert "--patience" in again.stdout


def test_a_mistake_ends_the_script_without_a_traceback(tmp_path, run_process):
    process = run_process("train.py", f"--output_dir={tmp_path}", "--width=0.5")
    assert process.returncode == 1
    lines = process.stderr.splitlines()
    message = "train.py: --width belongs to"
    assert len([line for line in lines if message in line]) == 1
    assert "Traceback" not in process.stderr
    assert "Epoch" not in process.stdout
