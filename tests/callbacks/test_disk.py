"""What the disk refuses is known before a step, and names the folder."""

import errno
import os
import pathlib

import keras
import pytest

import keras_incremental as ki
from keras_incremental import files


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """A folder in which nothing can be made, as root has no others."""
    folder, mkdir = tmp_path / "read_only", os.mkdir
    folder.mkdir()

    def refused(path, *args, **options):
        if folder in pathlib.Path(path).parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        mkdir(path, *args, **options)

    monkeypatch.setattr(os, "mkdir", refused)
    return folder


@pytest.mark.parametrize("option", ["publish_to", "backup_dir"])
def test_a_folder_that_cannot_be_written_is_an_error_before_the_step(
    lend_tiny, blobs, read_only, option
):
    model = lend_tiny()
    folder = read_only / "not" / "there"
    incremental = ki.IncrementalCallback(
        ki.ExemplarMemory(4), **{option: folder}
    )
    epochs = []
    counter = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: epochs.append(epoch)
    )
    with pytest.raises(OSError, match=f"'{folder}' cannot be written: Read-o"):
        model.fit(*blobs([0, 1]), callbacks=[incremental, counter], verbose=0)
    assert not epochs and not model.num_classes


def test_a_memory_saved_into_it_names_it(read_only):
    memory = ki.ExemplarMemory(4)
    path = read_only / "memory.npz"
    with pytest.raises(OSError, match=f"'{path}' cannot be written: Read-only"):
        memory.save(read_only)


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path):
    files.check_writable(tmp_path)
    assert os.listdir(tmp_path) == []
