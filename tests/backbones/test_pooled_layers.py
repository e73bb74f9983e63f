"""Guarantees for a backbone with the features of several layers."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_incremental as ki
from keras_incremental.backbones import with_pooled_layers


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 2))
    early = layers.Conv2D(3, 3, name="early")(image)
    flat = layers.Flatten(name="flat")(early)
    late = layers.Conv2D(4, 2, name="late")(early)
    twice = layers.Reshape((4, 12), name="rows")(flat)
    return keras.Model(
        image,
        layers.Dense(5)(
            layers.Concatenate()(
                [
                    layers.GlobalAveragePooling2D()(late),
                    layers.Flatten()(twice),
                ]
            )
        ),
        name="net",
    )


def images(count=3):
    return np.random.default_rng(0).normal(size=(count, 6, 6, 2))


def test_features_are_means_over_places_of_one_length(backbone):
    pooled = with_pooled_layers(backbone, ["late", "flat"])
    inner = keras.Model(
        backbone.input,
        [backbone.get_layer(name).output for name in ("late", "flat")],
    )
    maps, flat = map(np.asarray, inner(images()))
    parts = [maps.mean((1, 2)), flat, np.asarray(backbone(images()))]
    expected = [
        part / np.sqrt((part**2).sum(1, keepdims=True)) for part in parts
    ]
    expected = np.concatenate(expected, 1) * np.sqrt(pooled.output_shape[1] / 3)
    features = np.asarray(pooled(images()))
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose((features**2).mean(1), 1, rtol=1e-5)
    assert pooled.name == "net"


def test_weights_are_those_of_the_backbone(backbone):
    pooled = with_pooled_layers(backbone, ["early"])
    assert [*map(id, pooled.weights)] == [*map(id, backbone.weights)]


@pytest.mark.slow
def test_layers_behind_a_branch_point_can_be_used():
    blocks = [f"stage6_block{block}_out" for block in (1, 2, 3, 4)]
    network = ki.backbones.efficientnet_lite0((32, 32, 3))
    model = ki.IncrementalClassifier(
        with_pooled_layers(network, blocks), branch_at="stage5"
    )
    assert model.network.tail.output_shape == (None, 4 * 192 + 1280)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["late", "early", "late"], "names one of them twice"),
        (["rows"], r"(?s)layer 'rows' gives .*expected feature maps"),
        (["middle"], "No such layer: middle"),
    ],
)
def test_layers_that_cannot_be_used_are_refused(backbone, names, message):
    with pytest.raises(ValueError, match=message):
        with_pooled_layers(backbone, names)
