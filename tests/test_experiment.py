"""A scenario end to end: the figures in the results are right."""

import dataclasses
import json
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import metadata

import keras_incremental as ki
from keras_incremental.experiment import Experiment
from keras_incremental.predictions import predict
from keras_incremental.score_rules import ScoreRule

LABELS = [40, 7, 300, 5, 6, 1]  # of the digits 0 to 5, in order of arrival
PER_CLASS = 8


def make_scenario(tasks):
    """Returns tasks of two digits each, with few images."""
    x_train, y_train, x_test, y_test = ki.scenarios.load_digits()

    def part(x, y, per_class):
        rows = [np.flatnonzero(y == k)[:per_class] for k in range(2 * tasks)]
        rows = np.concatenate(rows)
        return x[rows], np.array(LABELS)[y[rows]]

    return ki.ClassIncrementalScenario.from_arrays(
        *part(x_train, y_train, PER_CLASS),
        *part(x_test, y_test, 6),
        classes_per_task=2,
        class_order=LABELS[: 2 * tasks],
        class_names={label: f"class {label}" for label in LABELS[: 2 * tasks]},
    )


def make(tasks=3, method=None, epochs=6, **model_options):
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(16, use_bias=False),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.ReLU(),
        ]
    )
    scenario = make_scenario(tasks)
    model = ki.IncrementalClassifier(backbone, **model_options)
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    incremental = ki.IncrementalCallback(
        ki.ExemplarMemory(24),
        method=method or ki.EEIL(finetune_epochs=2),
        class_names=scenario.class_names,
    )
    return Experiment(
        scenario, model, incremental, epochs=epochs, batch_size=8, verbose=0
    )


@dataclasses.dataclass
class Run:
    """An experiment that is over."""

    experiment: Experiment
    output_dir: pathlib.Path
    results: dict
    entries: list  # of each task, when it had just ended
    extracted: list  # images whose features each task has computed

    @property
    def model(self):
        return self.experiment.model

    def images_and_units(self):
        data = self.experiment.scenario[-1].seen_test
        images, labels = zip(*data.as_numpy_iterator(), strict=True)
        units = self.model.classes.to_units(np.array(labels))
        return np.stack(images), units


def run(experiment, output_dir):
    entries, counts, total = [], [0], [0]
    extract = experiment.model.extract_features

    def counting(images):
        features = extract(images)
        total[0] += len(features)
        return features

    def on_task_end(entry):
        entries.append(entry)
        counts.append(total[0])

    experiment.model.extract_features = counting
    results = experiment(output_dir, on_task_end)
    return Run(
        experiment, output_dir, results, entries, np.diff(counts).tolist()
    )


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """Pictures of few pixels, which nobody looks at, are quick to write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ki.reports.plots, "DPI", 20)
        yield


@pytest.fixture(scope="module")
def eeil(tmp_path_factory):
    """A run whose head doubles before the third task."""
    experiment = make(capacity=4)
    return run(experiment, tmp_path_factory.mktemp("eeil") / "out")


@pytest.fixture(scope="module")
def sharing(tmp_path_factory):
    """A run that adds a branch for each task after the first."""
    experiment = make(method=ki.PartialSharing(), branch_at="flat")
    return run(experiment, tmp_path_factory.mktemp("sharing") / "out")


def test_results_are_those_of_a_plain_account(eeil):
    model, scenario = eeil.model, eeil.experiment.scenario
    results, rows = eeil.results, []
    for task in scenario:
        images, labels = zip(*task.test.as_numpy_iterator(), strict=True)
        names = [scenario.class_names[label] for label in map(int, labels)]
        rows.append(
            np.mean(model.classify(np.stack(images), verbose=0) == names)
        )
    final = results["tasks"][-1]
    np.testing.assert_allclose(final["per_task_accuracy"], rows)
    np.testing.assert_allclose(results["accuracy_matrix"][-1], rows)
    assert results["accuracy_matrix"][0][1:] == [None, None]
    logs = model.evaluate(
        scenario[-1].seen_test.batch(16), verbose=0, return_dict=True
    )
    assert final["accuracy"] == pytest.approx(logs["accuracy"])
    assert results["final_accuracy"] == final["accuracy"]
    confusion = np.array(results["confusion_matrix"])
    assert np.trace(confusion) / confusion.sum() == pytest.approx(
        final["accuracy"]
    )
    assert final["uncalibrated_accuracy"] == final["accuracy"]
    assert results["class_order"] == LABELS


def test_entries_and_averages_are_of_the_moments_after_each_task(eeil):
    entries, results = eeil.entries, eeil.results
    assert results["tasks"] == entries
    accuracies = [entry["accuracy"] for entry in entries]
    assert results["average_incremental_accuracy"] == pytest.approx(
        np.mean(accuracies)
    )
    assert results["average_incremental_accuracy_after_first"] == (
        pytest.approx(np.mean(accuracies[1:]))
    )
    for entry, row in zip(entries, results["accuracy_matrix"], strict=True):
        assert entry["per_task_accuracy"] == row[: entry["task"] + 1]
    assert [entry["seen_classes"] for entry in entries] == [2, 4, 6]
    assert [entry["exemplars"] for entry in entries] == [16, 24, 24]
    assert [entry["epochs"] for entry in entries] == [6, 8, 8]
    assert entries[0]["classes"] == ["class 40", "class 7"]


def test_figures_are_right_beyond_the_heads_first_capacity(eeil):
    """All columns count, though the head has doubled between two tasks."""
    found = predict(eeil.model, eeil.experiment.scenario[-1].seen_test)
    assert eeil.entries[-1]["accuracy"] == np.mean(found.classes == found.units)
    assert set(found.classes) == {*range(6)}
    assert eeil.model.network.trained_head.allocated == 8
    assert eeil.results["train_function_traces"] == 2  # once for each size


def test_work_outside_training_does_not_grow_with_the_task(eeil):
    """Counted, not timed: the images that go through feature extraction."""
    # The first task selects once, the others twice: for both stages.
    assert eeil.extracted == [2 * PER_CLASS] + [4 * PER_CLASS] * 2


def test_output_folder_holds_all_files_and_refuses_a_second_run(eeil):
    names = {path.name for path in eeil.output_dir.iterdir()}
    assert names == {
        "results.json",
        "accuracy.png",
        "confusion.png",
        "before_after.png",
        "tensorboard",
        "model.keras",
        "memory",
    }
    stored = json.loads((eeil.output_dir / "results.json").read_text())
    assert stored["final_accuracy"] == eeil.results["final_accuracy"]
    assert stored["tasks"] == eeil.results["tasks"]
    memory = ki.ExemplarMemory.load(eeil.output_dir / "memory")
    model = keras.models.load_model(eeil.output_dir / "model.keras")
    assert memory.labels == model.labels
    with pytest.raises(FileExistsError, match=re.escape("results.json")):
        eeil.experiment(eeil.output_dir)


def test_tensorboard_has_reports_results_and_settings(eeil):
    folder = eeil.output_dir / "tensorboard" / "tasks"
    events = event_accumulator.EventAccumulator(str(folder)).Reload()

    def values(tag):
        return {
            event.step: float(tf.make_ndarray(event.tensor_proto))
            for event in events.Tensors(tag)
        }

    new = {entry["task"]: entry["new_accuracy"] for entry in eeil.entries}
    assert values("task/new_accuracy") == pytest.approx(new)
    average = values("results/average_incremental_accuracy")
    assert average[2] == pytest.approx(
        eeil.results["average_incremental_accuracy"]
    )
    assert values("results/forgetting")[2] == pytest.approx(
        eeil.results["forgetting"], abs=1e-6
    )
    plugin = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data
    info = metadata.parse_session_start_info_plugin_data(plugin.content)
    assert info.hparams["dataset"].string_value == "arrays"
    assert info.hparams["method.finetune_epochs"].number_value == 2


@pytest.mark.slow
def test_results_of_finished_tasks_survive_an_error(tmp_path):
    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if self.model.num_classes == 4:
                raise RuntimeError("lost power")

    with pytest.raises(RuntimeError, match="lost power"):
        make(tasks=2, epochs=1)(tmp_path / "out", callbacks=[Fail()])
    stored = ki.reports.read_results(tmp_path / "out")
    assert len(stored["tasks"]) == 1


@pytest.mark.slow
def test_branches_are_reported_with_and_without_calibration(sharing):
    model, final = sharing.model, sharing.results["tasks"][-1]
    images, units = sharing.images_and_units()
    calibrated = model.predict(images, verbose=0).argmax(axis=1)
    assert final["accuracy"] == np.mean(calibrated == units)
    raw, _ = model.logits_and_scores(images)
    assert final["uncalibrated_accuracy"] == np.mean(raw.argmax(1) == units)
    for task, accuracy in enumerate(final["task_aware_accuracy"]):
        own = units // 2 == task
        best = raw[own][:, 2 * task : 2 * task + 2].argmax(1)
        assert accuracy == np.mean(best == units[own] % 2)
    assert (model.score_rule.scales.numpy() != 1).any()
    assert sharing.results["branch_at"] == model.branch_at == "flat"
    assert sharing.results["train_function_traces"] == 2


@pytest.mark.slow
def test_task_aware_accuracy_of_old_tasks_does_not_change(sharing):
    final = sharing.entries[-1]["task_aware_accuracy"]
    assert len(final) == 3
    for entry in sharing.entries:
        task = entry["task"]
        assert entry["task_aware_accuracy"] == final[: task + 1]
        shared = {"clone_source", "similarity", "calibrated"} & set(entry)
        assert len(shared) == (3 if task else 0)
        if task:
            assert 0 <= entry["clone_source"] < task
            assert 0 <= entry["similarity"] <= 1
            assert entry["calibrated"] is True


@pytest.mark.slow
def test_the_files_of_a_run_with_branches_are_whole(sharing):
    stored = json.loads((sharing.output_dir / "results.json").read_text())
    assert stored["tasks"] == sharing.results["tasks"]
    model = keras.models.load_model(sharing.output_dir / "model.keras")
    images, _ = sharing.images_and_units()
    np.testing.assert_allclose(  # two models' functions, each traced apart
        model.predict(images, verbose=0),
        sharing.model.predict(images, verbose=0),
        rtol=1e-5,
        atol=1e-5,
    )


def test_the_score_rule_decides_and_the_logits_are_reported_beside_it(eeil):
    """What a rule of another method does is in the accuracy of the results."""
    task = eeil.experiment.scenario[-1]
    model, before = eeil.model, predict(eeil.model, task.seen_test)
    rule = model.score_rule
    model.score_rule = Opposite()
    try:
        entry, confusion = eeil.experiment._evaluate(task)
    finally:
        model.score_rule = rule
    worst = before.logits.argmin(axis=1)
    assert entry["accuracy"] == np.mean(worst == before.units)
    assert entry["uncalibrated_accuracy"] == before.accuracy
    assert np.trace(confusion) == (worst == before.units).sum()


@keras.saving.register_keras_serializable(package="test_experiment")
class Opposite(ScoreRule):
    """The class with the lowest logit wins."""

    def call(self, features, logits):
        return -logits
