"""Networks of vectors, and what changes all that training changes."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

from keras_incremental.networks import SingleNetwork

SEEDS = itertools.count()


@pytest.fixture(scope="session")
def x():
    """Five vectors."""
    random = np.random.default_rng(0)
    return random.normal(size=(5, 4)).astype("float32")


@pytest.fixture(scope="session")
def randomize():
    """Returns a function that gives all weights of a part new values."""

    def assign(part):
        random = np.random.default_rng(next(SEEDS))
        for weight in part.weights:
            if weight.dtype == "float32":
                weight.assign(random.uniform(0.5, 1.5, weight.shape))
        return part

    return assign


@pytest.fixture(scope="session")
def make_base(randomize):
    """Returns a function that makes a network of two classes, cut at "cut"."""

    def make(branch_at="cut", capacity=8, units=2, kind=SingleNetwork):
        x = inputs = keras.Input((4,))
        for index, width in enumerate((3, 2)):
            x = layers.Dense(width, use_bias=False, name=f"dense{index}")(x)
            x = layers.BatchNormalization(name=f"norm{index}")(x)
            x = layers.ReLU(name=("cut", "features")[index])(x)
        base = kind(
            randomize(keras.Model(inputs, x)),
            branch_at=branch_at,
            capacity=capacity,
        )
        if units:
            base.grow(units, seed=1)
        return base

    return make


@pytest.fixture(scope="session")
def learn(x):
    """Returns a function that changes all that training changes."""

    def change(network):
        network.trained(network.frozen(x), training=True)  # the statistics
        random = np.random.default_rng(next(SEEDS))
        for weight in network.trainable_variables:
            weight.assign_add(random.normal(0, 0.1, weight.shape))

    return change
