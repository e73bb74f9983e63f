"""A memory's folder: damage is named, and any file system will do."""

import json
import os
import pathlib
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from keras_incremental import ExemplarMemory
from keras_incremental.exemplars import ClassExemplars, RawStorage
from keras_incremental.files import as_path, atomic_write

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


def rewrite(folder, change):
    """Changes `memory.json` in a memory's file, whose checksums stay right."""
    path = folder / "memory.npz"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    record = json.loads(parts["memory.json"])
    change(record)
    parts["memory.json"] = json.dumps(record)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_damage_is_an_error_that_names_the_file(damaged, tmp_path):
    memory_of(IMAGES).save(tmp_path)
    path = tmp_path / "memory.npz"
    errors = 0
    for copy in damaged(path.read_bytes()):
        path.write_bytes(copy)
        try:
            memory = ExemplarMemory.load(tmp_path)
        except ValueError as error:
            errors += 1
            assert str(path) in str(error)
        else:
            assert contents(memory) == contents(memory_of(IMAGES))
    assert errors > 150


@pytest.mark.parametrize(
    "name", ["memory.json", "0/images.npy", "1/images.npy"]
)
def test_no_part_can_change_unseen(name, tmp_path):
    memory_of(IMAGES).save(tmp_path)
    path = tmp_path / "memory.npz"
    with zipfile.ZipFile(path) as archive:
        content = archive.read(name)
    whole = path.read_bytes()
    assert whole.count(content) == 1
    for place in range(len(content)):
        changed = bytearray(whole)
        changed[whole.index(content) + place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=f"{path} is damaged.*'{name}'"):
            ExemplarMemory.load(tmp_path)


def test_arrays_that_need_pickle_are_refused(tmp_path):
    memory_of(IMAGES).save(tmp_path)
    path = tmp_path / "memory.npz"
    with zipfile.ZipFile(path) as archive:
        record = archive.read("memory.json")
    np.savez(path, **{"0/images": np.array([object()])}, allow_pickle=True)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("memory.json", record)
    with pytest.raises(ValueError, match=rf"{path}.*allow_pickle"):
        ExemplarMemory.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("seed"),
        lambda record: record.update(more=1),
    ],
    ids=["missing", "unknown"],
)
def test_other_fields_are_an_error_that_names_the_file(tmp_path, change):
    memory_of(IMAGES).save(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(ValueError, match=rf"{tmp_path}/memory\.npz.*fields"):
        ExemplarMemory.load(tmp_path)


def test_equal_memories_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        memory_of(IMAGES).save(tmp_path / name)
    first, second = tmp_path / "a/memory.npz", tmp_path / "b/memory.npz"
    assert first.read_bytes() == second.read_bytes()


def test_the_file_is_one_that_numpy_reads(tmp_path):
    memory_of(IMAGES).save(tmp_path)
    with np.load(tmp_path / "memory.npz") as arrays:
        assert arrays["0/images"].tobytes() == IMAGES[30].tobytes()
        assert json.loads(arrays["memory.json"])["labels"] == [*IMAGES]


@pytest.mark.parametrize("call", ["write_array", "fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_memory(tmp_path, monkeypatch, call):
    memory_of(IMAGES).save(tmp_path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    module = {
        "write_array": np.lib.format,
        "fsync": os,
        "replace": pathlib.Path,
    }[call]
    monkeypatch.setattr(module, call, full)
    with pytest.raises(OSError, match="No space"):
        memory_of({7: IMAGES[30]}).save(tmp_path)
    monkeypatch.undo()
    assert contents(ExemplarMemory.load(tmp_path)) == contents(
        memory_of(IMAGES)
    )
    assert os.listdir(tmp_path) == ["memory.npz"]


def tree(folder):
    """Returns all that is in a folder, by path."""
    return {
        str(path.relative_to(folder)): path.is_file() and path.read_bytes()
        for path in folder.rglob("*")
    }


def of_someone_else(path, archive=False):
    if archive:
        np.savez(path / "memory.npz", mine=np.arange(3))
    else:
        (path / "notes.txt").write_text("mine")


@pytest.mark.parametrize("archive", [False, True], ids=["text", "memory.npz"])
def test_a_folder_of_something_else_is_refused_and_not_touched(
    tmp_path, archive
):
    of_someone_else(tmp_path, archive)
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match=r"1 in all.*new or empty"):
        memory_of(IMAGES).save(tmp_path)
    assert tree(tmp_path) == before


def test_what_is_beside_a_memory_stays(tmp_path):
    """Files in its folder, and a folder that an older one might be called."""
    folder, beside = tmp_path / "memory", tmp_path / "memory.old"
    beside.mkdir()
    of_someone_else(beside)
    memory_of({7: IMAGES[30]}).save(folder)
    of_someone_else(folder)
    memory_of(IMAGES).save(folder)
    assert contents(ExemplarMemory.load(folder)) == contents(memory_of(IMAGES))
    assert os.listdir(beside) == ["notes.txt"]
    assert sorted(os.listdir(folder)) == ["memory.npz", "notes.txt"]
    assert sorted(os.listdir(tmp_path)) == ["memory", "memory.old"]


def test_a_folder_that_a_killed_save_has_left_is_as_good_as_empty(tmp_path):
    left = tmp_path / f".memory.npz.{32 * '0'}.tmp"
    left.mkdir()
    (left / "owner.lock").touch()
    memory_of(IMAGES).save(tmp_path)
    assert os.listdir(tmp_path) == ["memory.npz"]


def test_a_memory_cannot_take_the_place_of_a_file(tmp_path):
    (tmp_path / "memory").write_text("mine")
    with pytest.raises(OSError, match="memory"):
        memory_of(IMAGES).save(tmp_path / "memory")
    assert (tmp_path / "memory").read_text() == "mine"


def test_a_memory_is_saved_and_loaded_elsewhere(bucket):
    fewer = {30: IMAGES[30][:1]}
    for images in (IMAGES, fewer, {}, IMAGES):
        memory_of(images).save(bucket)
        loaded = ExemplarMemory.load(bucket + "/")
        assert contents(loaded) == contents(memory_of(images))
    assert len([*as_path(bucket).iterdir()]) == 1  # nothing old is left


@pytest.mark.parametrize("call", ["copy", "rename"])
def test_a_save_elsewhere_that_is_cut_off_leaves_the_old_memory(
    call, bucket, monkeypatch
):
    memory_of(IMAGES).save(bucket)

    def cut_off(*args, **kwargs):
        raise tf.errors.UnavailableError(None, None, "gone")

    with monkeypatch.context() as patch:
        patch.setattr(tf.io.gfile, call, cut_off)
        with pytest.raises(tf.errors.UnavailableError, match="gone"):
            memory_of({7: IMAGES[30]}).save(bucket)
    assert contents(ExemplarMemory.load(bucket)) == contents(memory_of(IMAGES))


def test_damage_elsewhere_is_named(bucket):
    memory_of(IMAGES).save(bucket)
    path = as_path(bucket) / "memory.npz"
    content = path.read_bytes()
    with atomic_write(path) as file:
        file.write(content[:-1])
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        ExemplarMemory.load(bucket)


def test_a_folder_that_is_not_there_is_named(bucket):
    with pytest.raises(FileNotFoundError, match=f"{bucket}/memory.npz"):
        ExemplarMemory.load(bucket)
