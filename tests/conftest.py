"""What several test files share."""

import contextlib
import importlib
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import uuid

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_incremental.networks import BranchedNetwork
from keras_incremental.training.rollback import undone_on_error


def pytest_configure(config):
    """Suits TensorFlow to short tests, of which tracing takes most.

    Grappler takes longer than they do, and each worker has a core to itself.
    """
    if config.option.markexpr == "not slow":
        tf.config.optimizer.set_experimental_options(
            {"disable_meta_optimizer": True}
        )
        if hasattr(config, "workerinput"):
            tf.config.threading.set_inter_op_parallelism_threads(1)
            tf.config.threading.set_intra_op_parallelism_threads(1)


class _UndoError(Exception):
    """Ends a block whose changes are to be undone."""


@contextlib.contextmanager
def _restored(model, memory=None):
    with contextlib.suppress(_UndoError), undone_on_error(model, memory):
        yield
        raise _UndoError


@pytest.fixture(scope="session")
def restored():
    """Returns a context manager that brings model and memory back at its end.

    So that one model, traced once, serves many tests.
    """
    return _restored


@pytest.fixture(scope="session")
def make_tiny_backbone():
    """Returns a function that makes the backbone of `tiny_backbone`."""
    return _tiny_backbone


@pytest.fixture
def tiny_backbone(make_tiny_backbone):
    """A backbone of a few hundred weights, with batch normalisation."""
    return _tiny_backbone()


def _tiny_backbone():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(16, use_bias=False),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.ReLU(),
        ],
        name="tiny_backbone",
    )


@pytest.fixture(scope="session")
def blobs():
    """Returns a function from labels to easy images of these classes."""

    def make(labels, per_class=12, seed=0):
        random = np.random.default_rng(seed)
        images, targets = [], []
        for label in labels:
            centre = np.random.default_rng(list(str(label).encode()))
            mean = centre.uniform(40, 215, (4, 4, 1))
            noise = random.normal(0, 12, (per_class, 4, 4, 1))
            images.append((mean + noise).clip(0, 255).astype("uint8"))
            targets += [label] * per_class
        order = random.permutation(len(targets))
        return np.concatenate(images)[order], np.array(targets)[order]

    return make


@pytest.fixture(scope="session")
def add_branch():
    """Returns a function that adds a branch with classes to a model."""

    def add(
        model, labels, names=None, network=None, kind=BranchedNetwork, seed=None
    ):
        model.network = kind.on(model.network).with_branch(network)
        model.add_classes(labels, names, seed)

    return add


@pytest.fixture
def damaged():
    """Returns a function from a file's content to damaged copies of it.

    A hundred have one bit flipped, and a hundred are cut off, at random places.
    """

    def copies(content, flips=100, cuts=100, seed=0):
        random = np.random.default_rng(seed)
        for place in random.integers(len(content), size=flips):
            copy = bytearray(content)
            copy[place] ^= 1 << int(random.integers(8))
            yield bytes(copy)
        for place in random.integers(len(content), size=cuts):
            yield content[:place]

    return copies


@pytest.fixture
def bucket(monkeypatch):
    """Returns a folder `gs://...`, whose files TensorFlow keeps in RAM."""

    def redirected(function):
        def call(*args, **kwargs):
            found = function(*map(_in_ram, args), **kwargs)
            if function.__name__.startswith("get_matching"):  # of `glob`
                return [path.replace("ram://", "gs://") for path in found]
            return found

        return call

    # Keras imports it by this name, which makes another module of it.
    gfile = importlib.import_module("tensorflow.io.gfile")
    for name in (
        "GFile",
        "copy",
        "exists",
        "glob",
        "isdir",
        "listdir",
        "makedirs",
        "mkdir",
        "remove",
        "rename",
        "rmtree",
        "stat",
    ):
        function = redirected(getattr(gfile, name))
        monkeypatch.setattr(gfile, name, function)
    return f"gs://{uuid.uuid4().hex}"


def _in_ram(item):
    is_path = isinstance(item, (str, os.PathLike))
    return os.fspath(item).replace("gs://", "ram://") if is_path else item
