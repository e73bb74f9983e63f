"""A disk that is full after any number of pages, at everything written.

Each thing is written twice: whole, then anew on a disk with room for a part.
That is a small tmpfs where this process may mount one; elsewhere a limit on
the size of a file, which gives an error of its own (`EFBIG`).
"""

import contextlib
import dataclasses
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from attacks import backup_folder, results_file

import keras_incremental as ki
from keras_incremental import reports
from keras_incremental.backups import BackupFolder
from keras_incremental.exemplars import ClassExemplars, RawStorage
from keras_incremental.samples import ArraySamples, cache_column

SHORT = 0
LONG = 5
_PAGE, _PAGES = resource.getpagesize(), 2048


@dataclasses.dataclass
class Written:
    """Something on disk: how its state 0 or 1 is written, and what is read.

    Attributes:
        pages: what a state takes at most.
    """

    write: Callable
    read: Callable
    pages: int


def attack(rounds, seed, folder):
    """Writes each thing on a disk with room for none, some, most of it."""
    random = np.random.default_rng(seed)
    figures = {"writes": 0, "refused": 0, "wrong": 0}
    with _disk(folder) as kind:
        figures = {"disk": kind, **figures}
        for name, make in _ALL.items():
            place = folder / name
            place.mkdir()
            thing = make(place)
            outcome = None
            for pages in [0, *random.integers(thing.pages, size=rounds)]:
                if outcome != "refused":  # else it is there still
                    thing.write(0)
                outcome = _outcome(thing, place, int(pages), kind)
                figures["writes"] += 1
                figures["refused"] += outcome == "refused"
                figures["wrong"] += outcome == "wrong"
            shutil.rmtree(place)
    return figures


def _outcome(thing, place, pages, kind):
    """Returns what came of one write: `written`, `refused`, or `wrong`."""
    before, error = (thing.read(), _names(place)), None
    with _room(place.parent, pages, kind):
        try:
            thing.write(1)
        except (OSError, ValueError) as refusal:
            error = refusal
    if error is None:
        return "written"
    is_whole = (thing.read(), _names(place)) == before
    return "refused" if is_whole and str(place) in str(error) else "wrong"


def _names(place):
    """Returns what is in a folder, but for blobs, which only states name."""
    paths = place.rglob("*")
    return {path for path in paths if path.suffix != ".npz"}


# The disk.


@contextlib.contextmanager
def _disk(folder):
    size = f"size={_PAGE * _PAGES}"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        yield "limited"
        return
    try:
        yield "tmpfs"
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def _room(disk, pages, kind):
    """Leaves room for so many pages."""
    if kind == "limited":
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (pages * _PAGE, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return
    filler = disk / "filler"
    free = shutil.disk_usage(disk).free - pages * _PAGE
    filler.write_bytes(bytes(max(free, 0)))
    try:
        yield
    finally:
        filler.unlink()


# What is written.


def _model(place):
    models = [_classifier(classes) for classes in (2, 300)]  # a larger file
    path = place / "model.keras"

    def read():
        model = ki.model_files.load_model(path)
        return [np.asarray(value).tolist() for value in model.state_variables()]

    return Written(lambda state: models[state].save(path), read, 32)


def _classifier(classes):
    keras.utils.set_random_seed(classes)
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten()]
    model = ki.IncrementalClassifier(keras.Sequential(layers), capacity=4)
    model.add_classes(range(classes))
    return model


def _memory(place):
    def write(state):
        memory = ki.ExemplarMemory(100)
        spec = tf.TensorSpec((8, 8, 1), "uint8")
        rows = np.full((100, 8, 8, 1), state, "uint8")
        exemplars = ClassExemplars(RawStorage(), spec, rows)
        memory.restore({"cat": exemplars})
        memory.save(place)

    def read():
        return ki.ExemplarMemory.load(place).images("cat").tolist()

    return Written(write, read, 5)


def _backup(place):
    folder = BackupFolder(place)
    return Written(
        lambda state: backup_folder.commit(folder, state),
        lambda: backup_folder.read(folder),
        4,
    )


def _results(place):
    return Written(
        lambda state: reports.write_results(results_file.results(state), place),
        lambda: reports.read_results(place),
        2,
    )


def _publication(place):
    models = [_classifier(classes) for classes in (2, 3)]

    def read():
        files = place.rglob("[!.]*")
        return {path: path.read_bytes() for path in files if path.is_file()}

    return Written(
        lambda state: ki.export.publish(models[state], place), read, 60
    )


def _cached_columns(place):
    images = np.zeros((3000, 4, 4, 1), "float32")
    samples = ArraySamples(images, np.zeros(len(images), int))

    def write(state):
        with mock.patch.object(tempfile, "tempdir", str(place)):
            cache_column(
                "outputs", lambda images: images, samples, memory_bytes=state
            )

    return Written(write, lambda: None, 48)


_ALL = {
    "model": _model,
    "memory": _memory,
    "backup": _backup,
    "results": _results,
    "publication": _publication,
    "cached_columns": _cached_columns,
}
