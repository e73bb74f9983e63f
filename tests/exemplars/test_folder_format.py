"""A memory's folder: damage is named, and any file system will do."""

import json
import re
import uuid

import numpy as np
import pytest
import tensorflow as tf

from keras_incremental import ExemplarMemory
from keras_incremental.exemplars import ClassExemplars, RawStorage
from keras_incremental.files import as_path

IMAGES = {
    30: np.arange(128, dtype="uint8").reshape(2, 8, 8, 1),
    "dög": np.arange(64, dtype="uint8").reshape(1, 8, 8, 1),
}


def memory_of(images):
    memory = ExemplarMemory(capacity=12, seed=3)
    memory.restore(
        {
            label: ClassExemplars(
                RawStorage(), tf.TensorSpec((8, 8, 1), "uint8"), ranked
            )
            for label, ranked in images.items()
        }
    )
    return memory


def contents(memory):
    images = {label: memory.images(label).tobytes() for label in memory.labels}
    return memory.capacity, memory.per_class, memory.seed, images


@pytest.fixture(name="remote")
def _remote():
    return f"ram://memories/{uuid.uuid4().hex}"


@pytest.mark.parametrize("name", ["memory.json", "images.npy"])
def test_damage_is_an_error_that_names_the_file(name, damaged, tmp_path):
    memory_of(IMAGES).save(tmp_path / "memory")
    path = tmp_path / "memory" / name
    errors = 0
    for copy in damaged(path.read_bytes()):
        path.write_bytes(copy)
        try:
            memory = ExemplarMemory.load(tmp_path / "memory")
        except (ValueError, FileNotFoundError) as error:
            errors += 1
            assert str(path) in str(error)
        else:
            assert contents(memory) == contents(memory_of(IMAGES))
    assert errors > 150


def test_images_that_need_pickle_are_refused(tmp_path):
    memory_of(IMAGES).save(tmp_path / "memory")
    path = tmp_path / "memory" / "images.npy"
    np.save(path, np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        ExemplarMemory.load(tmp_path / "memory")


def test_images_outside_of_the_folder_are_refused(remote):
    memory_of(IMAGES).save(remote)
    path = as_path(remote) / "memory.json"
    record = json.loads(path.read_text())
    del record["checksum"]
    record["images"] = "../elsewhere.npy"
    path.write_bytes(json.dumps(record).encode())
    with pytest.raises(ValueError, match=r"memory\.json is damaged.*elsewhere"):
        ExemplarMemory.load(remote)


def test_a_memory_is_saved_and_loaded_elsewhere(remote):
    fewer = {30: IMAGES[30][:1]}
    for images in (IMAGES, fewer, {}, IMAGES):
        memory_of(images).save(remote)
        loaded = ExemplarMemory.load(remote + "/")
        assert contents(loaded) == contents(memory_of(images))
    assert len(as_path(remote).glob("*")) == 2  # nothing old is left


@pytest.mark.parametrize("cut", [0, 1])
def test_a_save_elsewhere_that_is_cut_off_leaves_the_old_memory(
    cut, remote, monkeypatch
):
    """Before the images have their name, or before memory.json has."""
    memory_of(IMAGES).save(remote)
    rename, calls = tf.io.gfile.rename, []

    def cut_off(*args, **kwargs):
        calls.append(args)
        if len(calls) > cut:
            raise tf.errors.UnavailableError(None, None, "gone")
        rename(*args, **kwargs)

    monkeypatch.setattr(tf.io.gfile, "rename", cut_off)
    with pytest.raises(OSError, match="gone"):
        memory_of({7: IMAGES[30]}).save(remote)
    monkeypatch.undo()
    assert contents(ExemplarMemory.load(remote)) == contents(memory_of(IMAGES))


def test_damage_elsewhere_is_named(remote):
    memory_of(IMAGES).save(remote)
    (path,) = as_path(remote).glob("images-*.npy")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        ExemplarMemory.load(remote)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path} does not exist"):
        ExemplarMemory.load(remote)


def test_a_folder_that_is_not_there_is_named(remote):
    with pytest.raises(FileNotFoundError, match=f"{remote}/memory.json"):
        ExemplarMemory.load(remote)
