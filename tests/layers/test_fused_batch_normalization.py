"""The fused operation computes what Keras' layer computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_incremental.layers import FusedBatchNormalization

RANDOM = np.random.default_rng(0)
MAPS = RANDOM.normal(3, 2, (4, 5, 6, 7)).astype("float32")


def pair(x=MAPS, **options):
    """Returns our layer and Keras', with equal weights."""
    layers = [
        FusedBatchNormalization(**options),
        keras.layers.BatchNormalization(**options),
    ]
    for layer in layers:
        layer.build(x.shape)
    values = [
        RANDOM.uniform(0.5, 2, weight.shape) for weight in layers[1].weights
    ]
    for layer in layers:
        layer.set_weights(values)
    return layers


def assert_same(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def assert_same_steps(ours, theirs, x):
    """Compares outputs, gradients and the weights after a call in training."""
    results = []
    for layer in (ours, theirs):
        inputs = tf.Variable(x)
        with tf.GradientTape() as tape:
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(outputs**2 * tf.cast(outputs > 0, x.dtype))
        sources = [inputs, *(v.value for v in layer.trainable_variables)]
        results.append([outputs, *tape.gradient(loss, sources)])
    for mine, other in zip(*results, strict=True):
        assert_same(mine, other)
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        assert_same(mine, other)


@pytest.mark.parametrize("shape", [(4, 5, 6, 7), (2, 1, 1, 3), (3, 2, 2, 1)])
def test_training_follows_keras(shape):
    x = RANDOM.normal(1, 2, shape).astype("float32")
    ours, theirs = pair(x, momentum=0.9, epsilon=1e-5)
    assert_same_steps(ours, theirs, x)
    assert_same(ours(x), theirs(x))


def test_inference_follows_keras():
    ours, theirs = pair(epsilon=1e-3)
    assert_same(ours(MAPS), theirs(MAPS))


def test_moving_variance_is_that_of_the_batch_by_hand():
    layer = FusedBatchNormalization(momentum=0.75)
    layer(np.array([1, 3, 5, 7], "float32").reshape(1, 2, 2, 1), training=True)
    mean, variance = layer.get_weights()[2:]
    assert mean == pytest.approx(0.25 * 4)  # the mean of 1, 3, 5, 7
    assert variance == pytest.approx(0.75 + 0.25 * 5)  # and their variance


def test_a_frozen_layer_keeps_its_statistics():
    ours, theirs = pair()
    before = ours.get_weights()
    ours.trainable = theirs.trainable = False
    assert_same(ours(MAPS, training=True), theirs(MAPS, training=True))
    for now, then in zip(ours.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((4, 6), {}),
        ((4, 5, 6), {}),
        ((2, 3, 4, 5, 6), {}),
        ((4, 5, 6, 7), {"axis": 1}),
        ((4, 5, 6, 7), {"scale": False}),
        ((4, 5, 6, 7), {"center": False}),
        ((4, 5, 6, 7), {"dtype": "float64"}),
    ],
)
def test_what_cannot_be_fused_is_left_to_keras(shape, options):
    x = RANDOM.normal(size=shape).astype(options.get("dtype", "float32"))
    ours, theirs = pair(x, **options)
    assert_same_steps(ours, theirs, x)
    assert_same(ours(x), theirs(x))


def test_a_mask_is_left_to_keras():
    ours, theirs = pair(MAPS)
    mask = RANDOM.integers(0, 2, MAPS.shape[:-1]).astype(bool)
    assert_same(
        ours(MAPS, training=True, mask=mask),
        theirs(MAPS, training=True, mask=mask),
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_keeps_statistics_in_float32(policy):
    ours, theirs = pair(dtype=policy)
    half = tf.cast(MAPS, ours.compute_dtype)
    np.testing.assert_allclose(
        tf.cast(ours(half, training=True), tf.float32),
        tf.cast(theirs(half, training=True), tf.float32),
        atol=0.05,
    )
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        assert mine.dtype == "float32"
        np.testing.assert_allclose(mine, other, rtol=1e-2)


def test_a_file_of_keras_layer_gives_the_same_network():
    ours, theirs = pair()
    again = FusedBatchNormalization.from_config(theirs.get_config())
    again.build(MAPS.shape)
    again.set_weights(theirs.get_weights())
    np.testing.assert_array_equal(again(MAPS), ours(MAPS))
