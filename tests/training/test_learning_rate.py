"""The learning rate within a step, and what SGD keeps of it."""

import keras
import numpy as np
import pytest

from keras_incremental.training.learning_rate import LearningRate


def plain_momentum(gradients, rates, momentum=0.9):
    """`v = m v + g; w -= rate v`: a change of the rate acts at once."""
    weight, velocity = 1.0, 0.0
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity + gradient
        weight -= rate * velocity
    return weight


def test_a_drop_of_the_rate_acts_on_the_velocity_at_once():
    gradients, rates = [0.5, -0.2, 0.3, 0.1], [0.1, 0.1, 0.01, 0.01]
    weight = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build([weight])
    rate = LearningRate(optimizer)
    for gradient, value in zip(gradients, rates, strict=True):
        rate.apply(value / 0.1)
        optimizer.apply([np.array([gradient], "float32")], [weight])
    expected = plain_momentum(gradients, rates)
    assert float(weight.numpy()[0]) == pytest.approx(expected, rel=1e-5)


def test_restart_goes_back_to_the_compiled_rate():
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build([keras.Variable([1.0])])
    rate = LearningRate(optimizer)
    rate.apply(0.1)
    assert rate.now == pytest.approx(0.01)
    rate.restart()
    assert rate.now == pytest.approx(0.1)


def test_a_change_by_another_callback_is_kept():
    optimizer = keras.optimizers.SGD(0.1)
    rate = LearningRate(optimizer)
    rate.apply(1.0)
    optimizer.learning_rate = 0.02
    rate.apply(1.0)
    assert rate.now == pytest.approx(0.02)
    rate.apply(0.1)
    assert rate.now == pytest.approx(0.002)


def test_other_optimizers_and_wrapped_ones_work():
    for optimizer in (
        keras.optimizers.Adam(0.1),
        keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1, momentum=0.9)
        ),
    ):
        optimizer.build([keras.Variable([1.0])])
        rate = LearningRate(optimizer)
        rate.apply(0.1)
        assert rate.now == pytest.approx(0.01)
        assert float(optimizer.learning_rate) == pytest.approx(0.01)
