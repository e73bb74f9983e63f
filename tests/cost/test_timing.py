"""Timing in turns, and steps that leave the user's network alone."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_incremental.cost import timing
from keras_incremental.layers import ExpandableDense


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(4),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
        ]
    )


@pytest.fixture
def head():
    head = ExpandableDense((3,), capacity=8)
    head.build((None, 4))
    return head


def test_steps_run_in_turns_after_a_warm_up():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = timing.median_seconds(steps)
    assert set(seconds) == {"a", "b"}
    assert calls[:4] == ["a", "a", "b", "b"]
    assert calls[4:] == ["a", "b"] * timing._MAX_ROUNDS


def test_slow_steps_run_fewer_rounds(monkeypatch):
    monkeypatch.setattr(timing, "_MAX_SECONDS", 0.0)
    calls = []
    timing.median_seconds({"a": lambda: calls.append(1)})
    assert len(calls) == timing._WARM_UP_CALLS + timing._MIN_ROUNDS


def test_seconds_are_the_median(monkeypatch):
    durations = iter([5.0, 1.0, 9.0] * 20)
    monkeypatch.setattr(
        timing.timeit, "timeit", lambda step, number: next(durations)
    )
    assert timing.median_seconds({"a": lambda: None}) == {"a": 5.0}


def test_inference_step_computes_the_head_on_the_features(network, head):
    images = timing.random_images(network, 5)
    expected = np.mean(head(network(images, training=False)))
    step = timing.inference_step(network, head, images)
    assert step() == pytest.approx(expected, rel=1e-5)
    features = np.mean(network(images, training=False))
    step = timing.inference_step(network, None, images)
    assert step() == pytest.approx(features, rel=1e-5)


def test_training_step_trains_clones_and_not_the_network(network, head):
    network.trainable = head.trainable = False
    before = [*network.get_weights(), *head.get_weights()]
    images = timing.random_images(network, 16)
    step = timing.training_step(network, head, images)
    losses = [step() for _ in range(400)]
    assert np.mean(losses[-40:]) < np.mean(losses[:40])
    after = [*network.get_weights(), *head.get_weights()]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert not network.trainable_weights


class Mode(layers.Layer):
    """Remembers the modes that it is called in."""

    modes = []  # noqa: RUF012  (shared by its clones)

    def call(self, x, training=None):
        self.modes.append(training)
        return x


@pytest.mark.parametrize(
    ("make", "training"),
    [(timing.training_step, True), (timing.inference_step, False)],
)
def test_steps_run_the_layers_in_their_mode(head, make, training):
    network = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4), Mode(name="mode")]
    )
    step = make(network, head, timing.random_images(network, 2))
    Mode.modes.clear()
    step()
    assert Mode.modes == [training]


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_images_have_the_shape_and_type_of_the_input(dtype):
    network = keras.Sequential(
        [keras.Input((6, 4, 3), dtype=dtype), layers.Rescaling(1.0)]
    )
    images = timing.random_images(network, 7)
    assert images.shape == (7, 6, 4, 3) and images.dtype == dtype
    assert 0 <= np.min(images) < 5 and 250 < np.max(images) <= 255
    again = timing.random_images(network, 7)
    assert tf.reduce_all(images == again)


def test_random_state_is_set_back_even_after_an_error():
    state = random.getstate()
    with pytest.raises(KeyError), timing.unchanged_random_state():
        random.random()
        raise KeyError
    assert random.getstate() == state
