"""Gaussian noise on gradients."""

import numpy as np
import pytest
import tensorflow as tf

from keras_incremental.models.gradient_noise import add_noise


def test_noise_has_the_given_deviation_and_none_when_off():
    gradients = [tf.zeros((200, 100)), None, tf.ones((300,))]
    same = add_noise(gradients, tf.constant(0.0), [1, 2])
    np.testing.assert_array_equal(same[0], gradients[0])
    assert same[1] is None
    noisy = add_noise(gradients, tf.constant(0.25), [1, 2])
    assert noisy[1] is None
    assert np.std(noisy[0]) == pytest.approx(0.25, rel=0.02)
    assert np.mean(noisy[2]) == pytest.approx(1, abs=0.1)
    again = add_noise(gradients, tf.constant(0.25), [1, 2])
    np.testing.assert_array_equal(noisy[0], again[0])
    scaled = add_noise(gradients, tf.constant(0.25), [1, 2], 8.0)
    np.testing.assert_allclose(scaled[0], 8 * noisy[0], rtol=1e-5)


def test_each_variable_gets_noise_of_its_own():
    gradients = [tf.zeros((500,)), tf.zeros((500,))]
    noise = add_noise(gradients, tf.constant(1.0), [1, 2])
    assert abs(np.corrcoef(*noise)[0, 1]) < 0.3
