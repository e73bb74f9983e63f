"""Trackers get settings once, and the figures of each task."""

import json
import sys
import types
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import metadata

import keras_incremental as ki
from keras_incremental import trackers
from keras_incremental.callbacks import (
    TaskCallback,
    publication,
    task_callback,
)
from keras_incremental.trackers.tracker import flat, values_of
from keras_incremental.training import TaskReport

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 1), np.uint8)
LABELS = np.repeat([0, 1, 2, 3], 6)
SETTINGS = {"method": {"type": "EEIL", "copies": 2}, "seed": 0}


def report_of(**changes):
    return TaskReport(
        **{
            "new_labels": [7],
            "epochs": 3,
            "exemplars": 20,
            "train_seconds": 1.5,
            "overhead_seconds": 0.5,
            "details": {},
            "new_names": ["../new %"],
            "validation_images_by_class": {"cat": 10, "../new %": 30},
            "accuracy_by_class_before": {"cat": 1.0},
            "accuracy_by_class": {"cat": 0.5, "../new %": 0.25},
            "published": "gs://bucket/model/12",
            **changes,
        }
    )


class Recorder(trackers.Tracker):
    """Keeps what it is to log."""

    def __init__(self, settings=None):
        super().__init__(settings)
        self.settings, self.values = [], []

    def log_settings(self, settings):
        self.settings.append(settings)

    def log(self, index, values):
        self.values.append((index, values))


def test_values_are_the_figures_of_the_report():
    assert values_of(report_of()) == {
        "task/accuracy": (0.5 * 10 + 0.25 * 30) / 40,
        "task/old_accuracy_before": 1.0,
        "task/old_accuracy": 0.5,
        "task/new_accuracy": 0.25,
        "task/exemplars": 20,
        "task/epochs": 3,
        "task/train_seconds": 1.5,
        "task/overhead_seconds": 0.5,
        "task/published_version": 12,
        "class/cat": 0.5,
        "class/../new %": 0.25,
    }


def test_what_is_not_known_is_not_logged():
    report = report_of(
        accuracy_by_class=None, accuracy_by_class_before=None, published=None
    )
    assert [*values_of(report)] == [
        "task/epochs",
        "task/exemplars",
        "task/train_seconds",
        "task/overhead_seconds",
    ]


def test_settings_are_logged_once_before_the_first_task():
    tracker = Recorder({"data": "digits"})
    tracker.on_task_end(0, report_of(), SETTINGS)
    tracker.on_task_end(1, report_of(exemplars=30), SETTINGS)
    assert tracker.settings == [
        {"data": "digits", "method": "EEIL", "method.copies": 2, "seed": 0}
    ]
    assert [index for index, _ in tracker.values] == [0, 1]
    assert tracker.values[1][1]["task/exemplars"] == 30


def test_settings_become_one_level_of_plain_values():
    nested = {"a": {"b": {"type": "C", "d": [1, 2]}}, "e": None, "f": True}
    expected = {"a.b": "C", "a.b.d": "[1, 2]", "e": "None", "f": True}
    assert flat(nested) == expected


def callback(**options):
    """Returns one of a method without epochs: a fit takes no time."""
    return ki.IncrementalCallback(
        ki.ExemplarMemory(8), ki.Analytic(forgettable=False), **options
    )


@pytest.fixture
def fit(lend_tiny):
    """Returns a function that teaches a model classes, with callbacks."""
    model = lend_tiny()

    def fit(labels, *callbacks, model=model):
        rows, seen = np.isin(LABELS, labels), max(labels) >= LABELS
        model.fit(
            IMAGES[rows],
            LABELS[rows],
            batch_size=6,
            epochs=1,
            verbose=0,
            validation_data=(IMAGES[seen], LABELS[seen]),
            validation_freq=[],
            callbacks=[*callbacks],
        )

    return fit


def test_each_fit_tells_of_its_task_with_settings_and_published_version(
    fit, tmp_path, monkeypatch
):
    versions = iter("12")
    monkeypatch.setattr(
        publication, "publish", lambda *_, **__: f"out/{next(versions)}"
    )
    tracker = Recorder()
    seen = []

    class Others(TaskCallback):
        def on_task_end(self, index, report, settings):
            seen.append((index, report, json.dumps(settings)))

    incremental = callback(publish_to=tmp_path / "out")
    fit([0, 1], incremental, tracker, Others())
    fit([2, 3], incremental, tracker, Others())
    first, second = tracker.values
    assert [first[0], second[0]] == [0, 1]
    assert second[1]["task/published_version"] == 2
    report = incremental.reports[1]
    for name in ("accuracy", "old_accuracy", "new_accuracy", "exemplars"):
        assert second[1][f"task/{name}"] == getattr(report, name)
    by_class = [second[1][f"class/{name}"] for name in "0123"]
    assert by_class == [*report.accuracy_by_class.values()]
    (settings,) = tracker.settings
    expected = {
        "method": "Analytic",
        "method.forgettable": False,
        "memory.capacity": 8,
        "augment": "None",
        "seed": 0,
        "epochs": 1,
        "batch_size": 6,
        "optimizer": "SGD",
        "optimizer.momentum": 0.9,
    }
    assert {key: settings[key] for key in expected} == expected
    assert [index for index, *_ in seen] == [0, 1]
    assert [report for _, report, _ in seen] == incremental.reports


def test_a_task_stays_learned_if_its_tracker_fails(fit):
    class Broken(Recorder):
        def log(self, index, values):
            raise ConnectionError("no server")

    with pytest.raises(ConnectionError):
        fit([0, 1], callback(), tracker := Broken())
    assert tracker.model.class_names == ["0", "1"]


def test_of_several_workers_the_chief_alone_tells(monkeypatch):
    monkeypatch.setattr(task_callback, "is_chief", lambda strategy: False)
    request = types.SimpleNamespace(callbacks=[tracker := Recorder()])
    model = types.SimpleNamespace(distribute_strategy="two workers")
    task_callback.tell_of_task(None, model, request, None)
    assert not tracker.values


def test_a_finished_task_is_told_of_again_after_a_restart(
    fit, lend_tiny, tmp_path
):
    before, after = Recorder(), Recorder()
    fit([0, 1], callback(backup_dir=tmp_path), before)
    model = lend_tiny()  # as the next process makes it
    fit([0, 1], callback(backup_dir=tmp_path), after, model=model)
    assert after.values == before.values
    assert after.settings == before.settings


# TensorBoard.


def test_tensorboard_has_scalars_and_hyperparameters(tmp_path):
    board = trackers.TensorBoard(tmp_path, {"data": "digits"})
    board.on_task_end(0, report_of(), SETTINGS)
    board.on_task_end(1, report_of(exemplars=30), SETTINGS)
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    exemplars = events.Tensors("task/exemplars")
    values = [
        (e.step, float(tf.make_ndarray(e.tensor_proto))) for e in exemplars
    ]
    assert values == [(0, 20), (1, 30)]
    assert "class/../new %" in events.Tags()["tensors"]
    plugin = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data
    info = metadata.parse_session_start_info_plugin_data(plugin.content)
    assert {key: str(value) for key, value in info.hparams.items()} == {
        "data": 'string_value: "digits"\n',
        "method": 'string_value: "EEIL"\n',
        "method.copies": "number_value: 2\n",
        "seed": "number_value: 0\n",
    }


# MLflow and Weights & Biases: their functions, then the packages themselves.


@pytest.fixture
def mlflow(monkeypatch):
    """Stands for the package; `logged` has the calls."""
    logged = []
    module = types.SimpleNamespace(
        logged=logged,
        log_params=lambda *args, **options: logged.append((args, options)),
        log_metrics=lambda *args, **options: logged.append((args, options)),
    )
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return module


def test_mlflow_gets_parameters_and_metrics_by_step(mlflow):
    tracker = trackers.MLflow(run_id="r")
    tracker.on_task_end(3, report_of(), SETTINGS)
    params, metrics = mlflow.logged
    flat_settings = {"method": "EEIL", "method.copies": 2, "seed": 0}
    assert params == ((flat_settings,), {"run_id": "r"})
    ((values,), options) = metrics
    assert options == {"step": 3, "run_id": "r"}
    assert values["task/new_accuracy"] == 0.25
    checksum = zlib.crc32(b"../new %")
    assert values[f"class/___new __{checksum:08x}"] == 0.25


def test_mlflow_gets_a_thousand_metrics_at_once_and_none_is_lost(mlflow):
    names = [f"{i}{char}" for i in range(700) for char in "%#"]
    tracker = trackers.MLflow()
    tracker.log(0, {f"class/{name}": 1.0 for name in names})
    parts = [values for (values,), _ in mlflow.logged]
    assert [len(part) for part in parts] == [1000, 400]
    assert len({name for part in parts for name in part}) == 1400


class Run:
    """Stands for a run of Weights & Biases."""

    def __init__(self):
        self.calls = []
        self.config = types.SimpleNamespace(update=self._keep("config"))
        self.define_metric = self._keep("define_metric")
        self.log = self._keep("log")

    def _keep(self, name):
        def call(*args, **options):
            self.calls.append((name, args, options))

        return call


def test_wandb_gets_config_and_figures_at_the_number_of_the_task(monkeypatch):
    run = Run()
    module = types.SimpleNamespace(run=run)
    monkeypatch.setitem(sys.modules, "wandb", module)
    trackers.WandB().on_task_end(3, report_of(), SETTINGS)
    *axes, config, log = run.calls
    assert axes == [
        ("define_metric", (group,), {"step_metric": "task/index"})
        for group in ("task/*", "class/*", "results/*")
    ]
    assert config[1] == ({"method": "EEIL", "method.copies": 2, "seed": 0},)
    name, (values,), options = log
    assert (name, options) == ("log", {})  # no step: that one is of epochs
    assert values["task/index"] == 3 and values["class/cat"] == 0.5


def test_wandb_without_a_run_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(run=None))
    with pytest.raises(ValueError, match=r"Call wandb\.init"):
        trackers.WandB()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_package_that_is_missing_is_an_error_with_the_line_to_install_it(
    monkeypatch, name
):
    monkeypatch.setitem(sys.modules, name, None)
    make = {"mlflow": trackers.MLflow, "wandb": trackers.WandB}[name]
    with pytest.raises(ImportError, match=rf"keras_incremental\[{name}\]"):
        make()


@pytest.mark.slow
def test_a_run_of_mlflow_has_what_was_logged(fit, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    with mlflow.start_run() as run:
        tracker = trackers.MLflow(settings={"data": "digits"})
        incremental = callback()
        fit([0, 1], incremental, tracker)
        fit([2, 3], incremental, tracker)
        tracker.log(2, values_of(report_of()))  # a name that MLflow refuses
    client = mlflow.MlflowClient()
    data = client.get_run(run.info.run_id).data
    assert data.params["method.forgettable"] == "False"
    assert data.params["data"] == "digits"
    history = client.get_metric_history(run.info.run_id, "task/new_accuracy")
    assert [(metric.step, metric.value) for metric in history] == [
        (index, report.new_accuracy)
        for index, report in enumerate([*incremental.reports, report_of()])
    ]


@pytest.mark.slow
def test_a_run_of_wandb_has_what_was_logged(fit, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with wandb.init(project="test", dir=tmp_path) as run:
        tracker = trackers.WandB(settings={"data": "digits"})
        per_epoch = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: run.log(logs)
        )
        incremental = ki.IncrementalCallback(method=ki.FineTune())
        fit([0, 1], incremental, tracker, per_epoch)
        fit([2, 3], incremental, tracker, per_epoch)
        assert run.config["method"] == "FineTune"
        assert run.config["data"] == "digits"
        assert run.summary["task/index"] == 1
        new_accuracy = incremental.reports[1].new_accuracy
        assert run.summary["task/new_accuracy"] == new_accuracy
    assert list(tmp_path.rglob("*.wandb"))
