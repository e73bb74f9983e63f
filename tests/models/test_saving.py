"""`model.save`: a whole file or the older one, of whatever layers."""

import errno
import os
import stat

import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.model_files import load_model

IMAGES = np.random.default_rng(0).uniform(0, 255, (8, 4, 4, 1))


@pytest.fixture(name="model")
def _model(tiny_backbone):
    model = ki.IncrementalClassifier(tiny_backbone, capacity=4)
    model.add_classes(["cat", "dog"])
    return model


def full(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def killed(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["model.h5", "model", "model.keras.zip"])
def test_another_ending_is_refused_with_the_reason(model, tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}'.*ends in '\.keras'"):
        model.save(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_folder_in_place_of_a_file_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="zipped=False"):
        model.save(tmp_path / "model.keras", zipped=False)
    with pytest.raises(ValueError, match="cannot be replaced as a whole"):
        model.save(tmp_path / "model", zipped=False)
    assert os.listdir(tmp_path) == []


def test_an_older_file_is_replaced_unless_overwrite_is_false(model, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path, overwrite=False)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"model\.keras' exists"):
        model.save(path, overwrite=False)
    assert path.read_bytes() == before
    model.add_classes(["fox"])
    model.save(str(path), True, None)
    assert load_model(path).class_names == ["cat", "dog", "fox"]


def test_mode_link_and_missing_folders(model, tmp_path):
    target, link = tmp_path / "new" / "model.keras", tmp_path / "link.keras"
    link.symlink_to(target)
    before = os.umask(0o027)
    try:
        model.save(link)
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    target.chmod(0o604)
    model.save(link)
    assert stat.S_IMODE(target.stat().st_mode) == 0o604
    assert link.is_symlink() and link.readlink() == target
    assert load_model(link).num_classes == 2
    assert os.listdir(target.parent) == ["model.keras"]


@pytest.mark.parametrize("stop", [full, killed])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_the_older_file_stays_whole(model, tmp_path, monkeypatch, call, stop):
    path = tmp_path / "model.keras"
    model.save(path)
    before = path.read_bytes()
    model.add_classes(["fox"])
    monkeypatch.setattr(f"os.{call}", stop)
    with pytest.raises((OSError, KeyboardInterrupt)) as error:
        model.save(path)
    assert stop is killed or f"'{path}' cannot be written" in str(error.value)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.keras"]


def test_checkpoints_of_keras_are_whole_too(model, tmp_path, monkeypatch):
    """`ModelCheckpoint` calls `save`."""
    path = tmp_path / "best.keras"
    model.save(path)
    before = path.read_bytes()
    model.compile("sgd", run_eagerly=True)  # quick to start
    checkpoint = keras.callbacks.ModelCheckpoint(str(path))
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match=r"best\.keras"):
        model.fit(IMAGES, ["cat", "dog"] * 4, verbose=0, callbacks=[checkpoint])
    assert path.read_bytes() == before


def dense_of(model):
    layers = model.backbone.layers
    return next(x for x in layers if isinstance(x, keras.layers.Dense))


def low_rank(layer):
    layer.enable_lora(4)
    layer.lora_kernel_b.assign(np.full(layer.lora_kernel_b.shape, 0.01))


def integers(layer):
    layer.quantize("int8")


@pytest.mark.parametrize("change", [low_rank, integers])
def test_layers_that_save_another_form_than_their_variables_load(
    model, tmp_path, change
):
    change(dense_of(model))
    expected = model(IMAGES, training=False)
    for name in ("model.keras", "again.keras"):
        model.save(tmp_path / name)
        model = load_model(tmp_path / name)
        np.testing.assert_allclose(
            model(IMAGES, training=False), expected, rtol=1e-4, atol=1e-4
        )
