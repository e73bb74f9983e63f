"""A model's file is written as a whole, and never loaded with other weights."""

import json
import os

import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.files import as_path, atomic_write
from keras_incremental.model_files import load_model


@pytest.fixture(name="model")
def _model(tiny_backbone):
    model = ki.IncrementalClassifier(tiny_backbone, capacity=4)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.add_classes(["cat", "dog"])
    model.optimizer.build(model.trainable_variables)
    model.optimizer.variables[-1].assign_add(
        np.ones(model.optimizer.variables[-1].shape)
    )
    return model


@pytest.fixture(name="branched")
def _branched(tiny_backbone):
    model = ki.IncrementalClassifier(tiny_backbone, 4, branch_at=0.5)
    model.add_classes(["cat", "dog"])
    model.add_classes(["fox"])
    return model


def contents(model):
    """Returns all that makes up a model, comparable."""
    variables = [*model.state_variables()]
    if model.compiled:
        variables += model.optimizer.variables
    config = json.dumps(model.get_config(), default=str)
    return config, [np.asarray(value).tobytes() for value in variables]


def assert_never_wrong(load, path, copies, names_the_file=True):
    """Loads damaged copies: an error that names the file, or the model."""
    whole, errors = contents(load(path)), 0
    for copy in copies:
        path.write_bytes(copy)
        try:
            model = load(path)
        except Exception as error:
            errors += 1
            assert not names_the_file or str(path) in str(error)
        else:
            assert contents(model) == whole
    assert errors > 100


@pytest.mark.parametrize("kind", ["model", "branched"])
def test_damage_is_an_error_that_names_the_file(
    kind, damaged, tmp_path, request
):
    path = tmp_path / "model.keras"
    request.getfixturevalue(kind).save(path)
    copies = damaged(path.read_bytes())
    assert_never_wrong(load_model, path, copies)


def test_cut_off_files_are_named_by_keras_too(model, damaged, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    copies = damaged(path.read_bytes(), flips=0, cuts=101)
    assert_never_wrong(keras.models.load_model, path, copies)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model", "branched"])
def test_keras_loads_no_damaged_model_either(kind, damaged, tmp_path, request):
    path = tmp_path / "model.keras"
    request.getfixturevalue(kind).save(path)
    assert_never_wrong(
        keras.models.load_model,
        path,
        damaged(path.read_bytes()),
        names_the_file=False,
    )


@pytest.mark.parametrize("kind", ["model", "branched"])
def test_no_array_can_change_unseen(kind, tmp_path, request):
    """One bit of each array of the weights and of the optimizer, in turn."""
    model, path = request.getfixturevalue(kind), tmp_path / "model.keras"
    model.save(path)
    whole = path.read_bytes()
    arrays = [np.asarray(variable) for variable in model.weights]
    if model.compiled:
        arrays += [np.asarray(value) for value in model.optimizer.variables]
    contents_of_arrays = {a.tobytes() for a in arrays if a.nbytes > 8}
    places = [whole.find(content) for content in contents_of_arrays]
    assert len(places) >= 5 and min(places) > 0
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=rf"{path}.*model\.weights\.h5"):
            load_model(path)


def test_a_model_is_loaded_without_its_optimizer(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras", compile=False)
    assert not loaded.compiled
    assert contents(loaded)[1] == contents(model)[1][: len(model.weights)]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.keras"):
        load_model(tmp_path / "none.keras")


def test_a_lambda_is_not_loaded(tmp_path):
    path = tmp_path / "model.keras"
    layers = [keras.Input((2,)), keras.layers.Lambda(lambda x: x)]
    keras.Sequential(layers).save(path)
    with pytest.raises(ValueError, match=rf"{path}.*[Ll]ambda"):
        load_model(path)


def test_weights_that_a_layer_draws_with_a_seed_are_no_damage(tmp_path):
    backbone = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dropout(0.5, seed=1)]
    )
    model = ki.IncrementalClassifier(backbone, capacity=4)
    model.add_classes([0, 1])
    model(np.ones((2, 4)), training=True)
    model.save(tmp_path / "model.keras")
    keras.models.load_model(tmp_path / "model.keras")


def test_a_file_is_on_disk_before_it_has_its_name(model, tmp_path, monkeypatch):
    """Else a power cut could leave an empty file in place of the older one."""
    log, fsync, replace = [], os.fsync, os.replace

    def noted_fsync(descriptor):
        log.append(os.stat(descriptor).st_ino)
        fsync(descriptor)

    def noted_replace(source, target):
        replace(source, target)
        log.append("replace")

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    path = tmp_path / "model.keras"
    model.save(path)
    inode, folder = path.stat().st_ino, tmp_path.stat().st_ino
    assert log == [inode, "replace", folder]


def test_an_older_file_stays_if_saving_fails(model, tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    model.save(path)
    whole = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        model.save(path)
    assert path.read_bytes() == whole
    assert os.listdir(tmp_path) == ["model.keras"]


@pytest.mark.parametrize("load", [load_model, keras.models.load_model])
def test_a_model_is_saved_and_loaded_elsewhere(load, model, bucket):
    path = f"{bucket}/model.keras"
    for classes in (["fox"], ["cow"]):  # the second replaces the first
        model.add_classes(classes)
        model.save(path)
        assert contents(load(path)) == contents(model)


def test_damage_elsewhere_is_named_by_the_path_given(model, bucket):
    path = as_path(f"{bucket}/damaged.keras")
    model.save(path)
    content = path.read_bytes()
    with atomic_write(path) as file:
        file.write(content[:-30])
    with pytest.raises(ValueError, match=str(path)):
        load_model(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=str(path)):
        load_model(path)
