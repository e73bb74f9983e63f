"""What several test files share."""

import collections
import contextlib
import functools
import gc
import importlib
import logging
import os
import pathlib
import sys
import tempfile
import threading
import typing

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import uuid

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python import pywrap_tfe

import keras_incremental as ki
from keras_incremental.networks import BranchedNetwork
from keras_incremental.training.rollback import undone_on_error


def pytest_configure(config):
    """Suits TensorFlow to short tests, of which tracing takes most.

    Grappler takes longer than they do, and each worker has a core to itself.
    Python's garbage collector would search TensorFlow's objects again and
    again, in a tenth of the time; what is imported is never garbage.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    # To set a seed drops all that TensorFlow has made ready to run, functions
    # as well, for the sake of random operations with a state: we have none.
    pywrap_tfe.TFE_ContextClearCaches = lambda context: None
    # TensorFlow asks again and again what is an instance of its protocols, of
    # which Python keeps the members since 3.12 only.
    if sys.version_info < (3, 12):
        typing._get_protocol_attrs = functools.cache(typing._get_protocol_attrs)
    # Tests of several devices have two in their process.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    if config.option.markexpr == "not slow":
        tf.config.optimizer.set_experimental_options(
            {"disable_meta_optimizer": True}
        )
        if hasattr(config, "workerinput"):
            tf.config.threading.set_inter_op_parallelism_threads(1)
            tf.config.threading.set_intra_op_parallelism_threads(1)


class _UndoError(Exception):
    """Ends a block whose changes are to be undone."""


class _Inference:
    """The functions of `evaluate` and `predict`, with what they are traced on.

    They are dropped, rightly, with each set of classes that is removed.
    """

    def __init__(self, model):
        self._traced_on = self._parts(model)
        self._features_and_logits = model._inference
        self._functions = model.test_function, model.predict_function

    def bring_back(self, model):
        """Gives them back to the model, if it is of the same parts again."""
        if [*map(id, self._parts(model))] == [*map(id, self._traced_on)]:
            model.test_function, model.predict_function = self._functions
            model._inference = self._features_and_logits

    @staticmethod
    def _parts(model):
        return model.network, model.score_rule, *model.network.variables


@contextlib.contextmanager
def _restored(model, memory=None):
    rate = float(model.optimizer.learning_rate) if model.compiled else None
    inference = [_Inference(model)]
    try:
        with contextlib.suppress(_UndoError), undone_on_error(model, memory):
            yield
            inference.append(_Inference(model))
            raise _UndoError
    finally:
        for functions in inference:
            functions.bring_back(model)
        if model.compiled:
            model.restart_optimizer()
            model.optimizer.learning_rate = rate


@pytest.fixture(scope="session")
def restored():
    """Returns a context manager that brings model and memory back at its end.

    So that one model, traced once, serves many tests. The optimizer is as new,
    and of the learning rate that it had.
    """
    return _restored


class ModelPool:
    """Lends models that are traced once and serve many tests."""

    def __init__(self):
        self._models = collections.defaultdict(list)
        self._lent = collections.Counter()
        self._open = contextlib.ExitStack()

    def __call__(self, make, *args):
        """Returns what `make(*args)` has made, now or for a test before.

        Those of one test are different models. All are as they were made, and
        the random seeds are 0, but functions may have been traced.
        """
        models, number = self._models[make, args], self._lent[make, args]
        if number == len(models):
            models.append(make(*args))
        self._lent[make, args] += 1
        self._open.enter_context(_restored(models[number]))
        keras.utils.set_random_seed(0)
        return models[number]

    def take_back(self):
        """Undoes what was done to all models that are lent, to lend them again.

        A test does so where a new process begins.
        """
        self._lent.clear()
        self._open.close()


@pytest.fixture(scope="session")
def model_pool():
    """Lends models until they are taken back; most tests use `lent`."""
    return ModelPool()


@pytest.fixture
def lent(model_pool):
    """Lends compiled models of a function; see `ModelPool`.

    A test about traces, compile options or a new optimizer makes its own.
    """
    yield model_pool
    model_pool.take_back()


def _tiny_classifier(branch_at=None, use_ema=False):
    model = ki.IncrementalClassifier(_tiny_backbone(), branch_at=branch_at)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, use_ema=use_ema))
    return model


@pytest.fixture(scope="session")
def make_tiny_classifier():
    """Returns a function that makes a compiled model of `tiny_backbone`."""
    return _tiny_classifier


@pytest.fixture
def lend_tiny(lent):
    """Returns a function that lends what `make_tiny_classifier` makes."""

    def lend(branch_at=None, use_ema=False):
        return lent(_tiny_classifier, branch_at, use_ema)

    return lend


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
def tensorflow_messages():
    """What TensorFlow logs in Python, as a list that grows."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    tf.get_logger().addHandler(handler)
    yield messages
    tf.get_logger().removeHandler(handler)


@pytest.fixture
def impatient(monkeypatch):
    """Has work that is told of once it takes long told of at once."""

    class Timer:
        def __init__(self, seconds, function, args):
            del seconds
            self.finished = threading.Event()
            self.start = lambda: (function(*args), self.finished.set())
            self.cancel = lambda: None

    monkeypatch.setattr(threading, "Timer", Timer)


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
def mapped_files(tmp_path, monkeypatch):
    """Counts the files of a temporary folder that this process has mapped.

    They have no names; Linux tells of them.
    """
    maps = pathlib.Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("mapped files are not listed here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda: maps.read_text(encoding="utf-8").count(f"{tmp_path}/")


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
