"""Files that older versions wrote are read, with what they held."""

import importlib.util
import json
import pathlib
import re
import shutil
import zipfile

import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.backups import BackupFolder

HERE = pathlib.Path(__file__).parent
VERSIONS = sorted(HERE.glob("version_*"))

every_version = pytest.mark.parametrize(
    "folder", VERSIONS, ids=lambda path: path.name
)


def _load(path):
    spec = importlib.util.spec_from_file_location("write", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


formats = _load(HERE / "write.py")


class Stopped(keras.callbacks.Callback):
    """Ends a fit before its first batch.

    Attributes:
        logits: of the model at that moment.
    """

    def __init__(self, images):
        super().__init__()
        self._images, self.logits = images, None

    def on_train_batch_begin(self, batch, logs=None):
        self.logits = formats.logits_of(self.model, self._images)
        raise formats.CutError


def expected(folder):
    with np.load(folder / "expected.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def assert_memory_is(memory, wanted):
    assert memory.labels == list(formats.NAMES)
    for label in memory.labels:
        np.testing.assert_array_equal(
            memory.images(label), wanted[f"memory_{label}"]
        )


def test_there_are_files_of_every_version_so_far():
    names = [path.name for path in VERSIONS]
    assert names == [f"version_{index}" for index in range(len(names))]
    assert len(names) >= 2


@every_version
@pytest.mark.parametrize("name", ["model", "branched"])
def test_a_model_gives_the_logits_it_gave(folder, name):
    model = keras.models.load_model(folder / f"{name}.keras")
    wanted = expected(folder)
    np.testing.assert_allclose(
        formats.logits_of(model, wanted["images"]), wanted[name], atol=1e-6
    )
    assert model.labels == list(formats.NAMES)
    assert model.class_names == list(formats.NAMES.values())
    assert model.has_branches == (name == "branched")
    assert np.ptp(wanted[name], axis=0).min() > 1e-3  # else this shows nothing


@every_version
def test_a_model_grows_after_loading(folder):
    model = keras.models.load_model(folder / "model.keras")
    images, labels = formats.data()
    model.fit(
        images[:12],
        labels[:12] + 500,
        verbose=0,
        callbacks=[ki.IncrementalCallback(method=ki.FineTune())],
    )
    assert model.labels == [*formats.NAMES, 530, 510]


@every_version
def test_a_memory_holds_the_images_it_held(folder):
    memory = ki.ExemplarMemory.load(folder / "memory")
    assert memory.capacity == len(memory) == 8
    assert_memory_is(memory, expected(folder))


@every_version
def test_results_hold_what_they_held(folder):
    results = ki.reports.read_results(folder)
    assert results["class_order"] == list(formats.NAMES)
    assert [task["classes"] for task in results["tasks"]] == [
        ["cat", "dög"], ["fox", "猫"],
    ]  # fmt: skip
    logits, (_, labels) = expected(folder)["model"], formats.data()
    hits = np.array(list(formats.NAMES))[logits.argmax(axis=1)] == labels
    assert results["final_accuracy"] == pytest.approx(hits.mean())


@every_version
def test_a_backup_of_a_finished_run_is_taken_up(folder, tmp_path):
    shutil.copytree(folder / "backup_step", tmp_path / "backup")
    model, memory = formats.classifier(), ki.ExemplarMemory(8)
    callback = formats.incremental(memory, ki.EEIL(1), tmp_path / "backup")
    wanted = expected(folder)
    for task in formats.TASKS:
        formats.fit(model, task, callback, Stopped(wanted["images"]))
    np.testing.assert_allclose(
        formats.logits_of(model, wanted["images"]), wanted["model"], atol=1e-6
    )
    assert_memory_is(memory, wanted)


@every_version
def test_a_backup_within_a_step_is_taken_up_where_it_was(folder, tmp_path):
    shutil.copytree(folder / "backup_epoch", tmp_path / "backup")
    model, memory = formats.classifier(), ki.ExemplarMemory(8)
    callback = formats.incremental(memory, ki.EEIL(1), tmp_path / "backup")
    wanted = expected(folder)
    stopped = Stopped(wanted["images"])
    formats.fit(model, formats.TASKS[0], callback, stopped)
    assert stopped.logits is None  # the first step was finished
    with pytest.raises(formats.CutError):
        formats.fit(model, formats.TASKS[1], callback, stopped)
    np.testing.assert_allclose(
        stopped.logits, wanted["backup_epoch"], atol=1e-6
    )


def test_a_model_of_a_newer_version_is_refused(tmp_path):
    source = VERSIONS[-1] / "model.keras"
    with zipfile.ZipFile(source) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    assert config["config"]["format_version"] == 1
    config["config"]["format_version"] = 2
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "new.keras", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(Exception, match=r"format version 2.*reads up to 1"):
        keras.models.load_model(tmp_path / "new.keras")


def test_a_memory_of_a_newer_version_is_refused(tmp_path):
    shutil.copytree(VERSIONS[-1] / "memory", tmp_path / "memory")
    path = tmp_path / "memory" / "memory.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**record, "format_version": 3}))
    message = f"^{re.escape(str(path))} has format version 3; .*reads 2"
    with pytest.raises(ValueError, match=message):
        ki.ExemplarMemory.load(tmp_path / "memory")


def test_a_backup_of_a_newer_version_is_refused(tmp_path):
    shutil.copytree(VERSIONS[-1] / "backup_step", tmp_path / "backup")
    path = sorted((tmp_path / "backup").glob("state-*.json"))[-1]
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "format_version": 2}))
    message = f"^{re.escape(str(path))} has format version 2; .*reads 1"
    with pytest.raises(ValueError, match=message):
        BackupFolder(tmp_path / "backup").read()


def test_the_script_writes_what_these_tests_read(tmp_path):
    formats.write(tmp_path / "now")
    names = sorted(path.name for path in (tmp_path / "now").iterdir())
    assert names == sorted(path.name for path in VERSIONS[-1].iterdir())
