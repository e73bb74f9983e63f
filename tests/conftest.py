"""What several test files share."""

import contextlib
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest

from keras_incremental.training.rollback import undone_on_error


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
def tiny_backbone():
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
