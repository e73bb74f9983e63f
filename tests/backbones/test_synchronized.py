"""Batch statistics over all replicas; see tests/distribution for several."""

import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.backbones import with_synchronized_normalization


def normalizations(network):
    return [
        layer
        for layer in network._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def nested():
    inner = ki.backbones.small((8, 8, 1))
    return keras.Sequential(
        [keras.Input((8, 8, 1)), inner, keras.layers.BatchNormalization()]
    )


def with_shortcut():
    image = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, padding="same")(image)
    shortcut = x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(4, 3, padding="same")(x)
    x = keras.layers.Add()([shortcut, keras.layers.BatchNormalization()(x)])
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


@pytest.mark.parametrize("make", [with_shortcut, nested])
def test_every_normalization_of_the_copy_is_synchronized(make):
    network = make()
    images = np.random.default_rng(0).random((4, *network.input_shape[1:]))
    network(images, training=True)  # statistics that are not the first ones
    copy = with_synchronized_normalization(network)
    assert len(normalizations(copy)) == len(normalizations(network)) > 1
    assert all(layer.synchronized for layer in normalizations(copy))
    assert not any(layer.synchronized for layer in normalizations(network))
    np.testing.assert_allclose(copy(images), network(images), atol=1e-5)
    np.testing.assert_allclose(
        copy(images, training=True), network(images, training=True), atol=1e-4
    )


def test_the_copy_has_weights_of_its_own():
    network = ki.backbones.small((8, 8, 1))
    copy = with_synchronized_normalization(network)
    before = network.get_weights()
    for weight in copy.weights:
        weight.assign(weight + 1.0)
    for now, then in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_classifier_of_it_is_saved_and_loaded(tmp_path):
    backbone = with_synchronized_normalization(ki.backbones.small((8, 8, 1)))
    model = ki.IncrementalClassifier(backbone)
    model.add_classes(["a"])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert all(layer.synchronized for layer in normalizations(loaded.backbone))
