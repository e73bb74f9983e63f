"""Guarantees of the shortcut without parameters."""

import keras
import numpy as np
import pytest

from keras_incremental.backbones.cifar_resnet import ZeroPadShortcut


@pytest.mark.parametrize("size", [4, 5])
def test_keeps_even_pixels_and_appends_zero_channels(size):
    x = np.random.default_rng(0).normal(size=(2, size, size, 3))
    x = x.astype("float32")
    y = np.asarray(ZeroPadShortcut(5, strides=2)(x))
    np.testing.assert_array_equal(y[..., :3], x[:, ::2, ::2])
    np.testing.assert_array_equal(y[..., 3:], np.zeros_like(y[..., 3:]))


@pytest.mark.parametrize("size", [4, 5, None])
def test_symbolic_shape_is_that_of_the_pixels_kept(size):
    layer = ZeroPadShortcut(5, strides=2)
    symbolic = layer(keras.Input((size, size, 3))).shape
    half = None if size is None else (size + 1) // 2
    assert symbolic == (None, half, half, 5)


def test_has_no_weights():
    layer = ZeroPadShortcut(4)
    layer(np.zeros((1, 2, 2, 2), "float32"))
    assert layer.weights == []


def test_is_registered_under_the_package():
    config = keras.saving.serialize_keras_object(ZeroPadShortcut(4, 2))
    assert config["registered_name"] == "keras_incremental>ZeroPadShortcut"
    again = keras.saving.deserialize_keras_object(config)
    assert (again.filters, again.strides) == (4, 2)
