"""A scenario end to end: the figures in the results are right."""

import json
import re

import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.experiment import Experiment


@pytest.fixture
def make(tiny_backbone, blobs):
    def experiment(tasks=3, method=None, model_options=None, **options):
        labels = [40, 7, 300, 5, 6, 1, 9, 2, 8, 3, 11, 10][: 2 * tasks]
        scenario = ki.ClassIncrementalScenario.from_arrays(
            *blobs(labels, per_class=8),
            *blobs(labels, per_class=6, seed=1),
            classes_per_task=2,
            class_order=labels,
            class_names={label: f"class {label}" for label in labels},
        )
        model = ki.IncrementalClassifier(tiny_backbone, **model_options or {})
        model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
        incremental = ki.IncrementalCallback(
            ki.ExemplarMemory(24),
            method=method or ki.EEIL(finetune_epochs=4),
            class_names=scenario.class_names,
        )
        return Experiment(
            scenario, model, incremental, epochs=8, batch_size=8, verbose=0,
            **options,
        )  # fmt: skip

    return experiment


def test_results_are_those_of_a_plain_account(make):
    experiment = make()
    seen = []
    results = experiment(on_task_end=seen.append)
    model, scenario = experiment.model, experiment.scenario
    rows = []
    for task in scenario:
        x = np.stack([image for image, _ in task.test.as_numpy_iterator()])
        y = np.array([label for _, label in task.test.as_numpy_iterator()])
        rows.append(np.mean(model.classify(x, verbose=0) == [
            scenario.class_names[label] for label in y.tolist()
        ]))  # fmt: skip
    final = results["tasks"][-1]
    np.testing.assert_allclose(final["per_task_accuracy"], rows)
    np.testing.assert_allclose(results["accuracy_matrix"][-1], rows)
    logs = model.evaluate(
        scenario[-1].seen_test.batch(16), verbose=0, return_dict=True
    )
    assert final["accuracy"] == pytest.approx(logs["accuracy"])
    assert results["final_accuracy"] == final["accuracy"]
    accuracies = [entry["accuracy"] for entry in seen]
    assert results["average_incremental_accuracy"] == pytest.approx(
        np.mean(accuracies)
    )
    assert results["average_incremental_accuracy_after_first"] == (
        pytest.approx(np.mean(accuracies[1:]))
    )
    confusion = np.array(results["confusion_matrix"])
    assert np.trace(confusion) / confusion.sum() == pytest.approx(
        final["accuracy"]
    )
    assert [entry["seen_classes"] for entry in seen] == [2, 4, 6]
    assert [entry["exemplars"] for entry in seen] == [16, 24, 24]
    assert seen[0]["classes"] == ["class 40", "class 7"]
    assert results["class_order"] == [40, 7, 300, 5, 6, 1]
    assert results["train_function_traces"] <= 2
    assert results["accuracy_matrix"][0][1:] == [None, None]


def test_work_outside_training_does_not_grow_with_the_task(make):
    """Counted, not timed: the images that go through feature extraction."""
    experiment = make(tasks=6)
    counts, total = [], [0]
    real = experiment.model.extract_features

    def counting(images):
        features = real(images)
        total[0] += len(features)
        return features

    experiment.model.extract_features = counting
    experiment(on_task_end=lambda entry: counts.append(total[0]))
    each = np.diff([0, *counts]).tolist()
    # The first task selects once, the others twice: for both stages.
    assert each == [16] + [32] * 5


def test_output_folder_holds_all_files_and_refuses_a_second_run(make, tmp_path):
    results = make(tasks=2)(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "results.json", "accuracy.png", "confusion.png", "tensorboard",
        "model.keras", "memory",
    }  # fmt: skip
    stored = json.loads((tmp_path / "out/results.json").read_text())
    assert stored["final_accuracy"] == results["final_accuracy"]
    memory = ki.ExemplarMemory.load(tmp_path / "out/memory")
    model = keras.models.load_model(tmp_path / "out/model.keras")
    assert memory.labels == model.labels
    with pytest.raises(FileExistsError, match=re.escape("results.json")):
        make(tasks=2)(tmp_path / "out")


def test_results_of_finished_tasks_survive_an_error(make, tmp_path):
    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if self.model.num_classes == 4:
                raise RuntimeError("lost power")

    with pytest.raises(RuntimeError, match="lost power"):
        make()(tmp_path / "out", callbacks=[Fail()])
    stored = ki.reports.read_results(tmp_path / "out")
    assert len(stored["tasks"]) == 1


@pytest.fixture
def make_sharing(make, tiny_backbone):
    """An experiment that adds a branch for each task after the first."""

    def experiment(**options):
        branch_at = tiny_backbone.layers[1].name
        return make(
            method=ki.PartialSharing(),
            model_options={"branch_at": branch_at},
            **options,
        )

    return experiment


def images_and_units(experiment):
    data = experiment.scenario[-1].seen_test
    x = np.stack([image for image, _ in data.as_numpy_iterator()])
    y = np.array([label for _, label in data.as_numpy_iterator()])
    return x, experiment.model.classes.to_units(y)


def test_branches_are_reported_with_and_without_calibration(make_sharing):
    experiment = make_sharing()
    results = experiment()
    model, final = experiment.model, results["tasks"][-1]
    x, units = images_and_units(experiment)
    calibrated = model.predict(x, verbose=0).argmax(axis=1)
    assert final["accuracy"] == np.mean(calibrated == units)
    raw = model.uncalibrated_logits(x).numpy()
    assert final["uncalibrated_accuracy"] == np.mean(raw.argmax(1) == units)
    for task, accuracy in enumerate(final["task_aware_accuracy"]):
        own = units // 2 == task
        best = raw[own][:, 2 * task : 2 * task + 2].argmax(1)
        assert accuracy == np.mean(best == units[own] % 2)
    assert model.calibration()[0].tolist() != [1.0] * 6
    assert results["branch_at"] == model.branch_at
    assert results["train_function_traces"] == 2


def test_task_aware_accuracy_of_old_tasks_does_not_change(make_sharing):
    entries = make_sharing(tasks=4)()["tasks"]
    final = entries[-1]["task_aware_accuracy"]
    assert len(final) == 4
    for entry in entries:
        task = entry["task"]
        assert entry["task_aware_accuracy"] == final[: task + 1]
        shared = {"clone_source", "similarity", "calibrated"} & set(entry)
        assert len(shared) == (3 if task else 0)
        if task:
            assert 0 <= entry["clone_source"] < task
            assert 0 <= entry["similarity"] <= 1
            assert entry["calibrated"] is True


def test_the_files_of_a_run_with_branches_are_whole(make_sharing, tmp_path):
    experiment = make_sharing()
    results = experiment(tmp_path / "out")
    stored = json.loads((tmp_path / "out/results.json").read_text())
    assert stored["tasks"] == results["tasks"]
    model = keras.models.load_model(tmp_path / "out/model.keras")
    x, _ = images_and_units(experiment)
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), experiment.model.predict(x, verbose=0)
    )


def test_figures_are_right_beyond_the_heads_first_capacity(make):
    """All columns count, though the head has doubled between two tasks."""
    experiment = make(model_options={"capacity": 2})
    results = experiment()
    model, final = experiment.model, results["tasks"][-1]
    x, units = images_and_units(experiment)
    predictions = model.predict(x, verbose=0).argmax(axis=1)
    assert final["accuracy"] == np.mean(predictions == units) > 0.6
    assert final["uncalibrated_accuracy"] == final["accuracy"]
    assert model.head.allocated == 8
