"""The papers' weight decay: L2 inside the gradient, on kernels alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.networks import BranchedNetwork, SingleNetwork

DECAY = 0.1
RATE, MOMENTUM = 0.05, 0.9


def l2():
    return keras.regularizers.L2(DECAY / 2)


def backbone_of(regularizer):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(
                6,
                activation="tanh",
                bias_initializer="ones",
                kernel_regularizer=regularizer,
                name="hidden",
            ),
            keras.layers.BatchNormalization(name="norm"),
        ]
    )


def half_squares(*kernels):
    """By plain NumPy: the decay times half the sum of squares."""
    squares = [np.square(np.asarray(kernel, float)).sum() for kernel in kernels]
    return DECAY / 2 * sum(squares)


def head_kernels(network):
    return [
        network.head_weights(index)[0] for index in range(len(network.heads))
    ]


@pytest.mark.slow
def test_every_backbone_has_it_on_all_kernels_and_nothing_else():
    for build, shape in (
        (ki.backbones.resnet20, (8, 8, 3)),
        (ki.backbones.resnet18, (32, 32, 3)),
        (ki.backbones.small, (8, 8, 1)),
    ):
        network = build(input_shape=shape, kernel_regularizer=l2())
        kernels = [v for v in network.trainable_variables if v.name == "kernel"]
        assert len(network.losses) == len(kernels) > 2
        expected = half_squares(*kernels)
        assert float(sum(network.losses)) == pytest.approx(expected, rel=1e-4)
        assert not build(input_shape=shape).losses


def test_the_head_has_it_too_on_the_columns_in_use_alone():
    network = SingleNetwork(backbone_of(l2()), capacity=2)
    hidden = network.backbone.get_layer("hidden").kernel

    def assert_penalty():
        expected = half_squares(hidden, *head_kernels(network))
        (first, *heads) = network.losses
        assert float(first + sum(heads)) == pytest.approx(expected, rel=1e-5)
        traced = tf.function(lambda: tf.add_n(network.losses))
        assert float(traced()) == pytest.approx(expected, rel=1e-5)

    assert_penalty()
    for units in (1, 4):
        network.grow(units)
        assert_penalty()
    reserve = network.head.trainable_variables
    for variable in reserve:  # as gradient noise does
        variable.assign_add(tf.ones_like(variable))
    assert_penalty()
    network.shrink(1)
    assert_penalty()
    twin = network.twin()
    assert float(sum(twin.losses)) == pytest.approx(float(sum(network.losses)))


def test_a_penalty_does_not_move_reserve_columns_nor_those_taken_back():
    network = SingleNetwork(backbone_of(l2()), capacity=4)
    network.grow(2)
    network.grow(1)
    network.shrink(1)
    (kernel,) = [v for v in network.head.trainable_variables if v.ndim == 2]
    with tf.GradientTape() as tape:
        loss = tf.add_n(network.losses)
    gradient = tape.gradient(loss, kernel.value)
    np.testing.assert_allclose(
        gradient[:, :2], DECAY * kernel.numpy()[:, :2], rtol=1e-5
    )
    np.testing.assert_array_equal(gradient[:, 2:], 0)


def test_of_branches_the_newest_has_it_with_its_head():
    base = SingleNetwork(backbone_of(l2()), branch_at=0.0)
    base.grow(3)
    network = BranchedNetwork(base)
    for units in (2, 20):
        network = network.with_branch()
        network.grow(units)
        newest = network.branches[-1]
        hidden = newest.backbone.get_layer("hidden").kernel
        expected = half_squares(hidden, newest.head_weights(0)[0])
        assert float(sum(network.losses)) == pytest.approx(expected, rel=1e-5)


def test_a_backbone_without_it_gets_a_head_without_it():
    network = SingleNetwork(backbone_of(None))
    network.grow(2)
    assert network.head.kernel_regularizer is None
    assert not network.losses


# The train step.


def compiled(regularizer, policy="float32"):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = ki.IncrementalClassifier(backbone_of(regularizer), capacity=4)
        optimizer = keras.optimizers.SGD(RATE, momentum=MOMENTUM)
        if policy == "mixed_float16":  # at Keras' first scale it would overflow
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, 64.0)
        model.compile(optimizer, run_eagerly=True)  # quick to start
    finally:
        keras.config.set_dtype_policy(before)
    model.add_classes([0, 1])
    model.add_classes([2])
    return model


def bare_gradients(model, x, units):
    with tf.GradientTape() as tape:
        logits, _ = model.network(x, training=True)
        loss = keras.losses.sparse_categorical_crossentropy(
            units, logits, from_logits=True
        )
        loss = tf.reduce_mean(loss)
    variables = [v.value for v in model.trainable_variables]
    return [np.asarray(g) for g in tape.gradient(loss, variables)]


def test_sgd_with_momentum_steps_as_in_the_papers_and_pytorch(blobs):
    """`b = m b + g + decay w; w = w - rate b`, b = 0 before, kernels alone."""
    x, units = blobs([0, 1, 2], per_class=4)
    x = (x / 255).astype("float32")
    model = compiled(l2())
    weights = [v.numpy() for v in model.trainable_variables]
    is_kernel = ["kernel" in v.name for v in model.trainable_variables]
    assert sum(is_kernel) == 2 < len(is_kernel)
    buffers = [np.zeros_like(weight) for weight in weights]
    for _ in range(3):
        gradients = bare_gradients(model, x, units)
        for i, gradient in enumerate(gradients):
            decay = DECAY if is_kernel[i] else 0.0
            buffers[i] = MOMENTUM * buffers[i] + gradient + decay * weights[i]
            weights[i] = weights[i] - RATE * buffers[i]
        model.fit(x, units, batch_size=len(x), verbose=0)
        for mine, variable in zip(
            weights, model.trainable_variables, strict=True
        ):
            np.testing.assert_allclose(variable, mine, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_in_mixed_precision_it_is_that_of_the_float32_weights(blobs, policy):
    x, units = blobs([0, 1, 2], per_class=4)
    x, logs = (x / 255).astype("float32"), []
    for regularizer in (None, l2()):
        model = compiled(regularizer, policy)
        kernels = [
            model.backbone.get_layer("hidden").kernel.numpy(),
            *head_kernels(model.network),
        ]
        logs.append(model.evaluate(x, units, verbose=0, return_dict=True))
        before = [v.numpy() for v in model.trainable_variables]
        model.fit(x, units, batch_size=len(x), verbose=0)
        logs[-1]["weights"] = [v.numpy() for v in model.trainable_variables]
    penalty = half_squares(*kernels)
    assert logs[1]["loss"] - logs[0]["loss"] == pytest.approx(penalty, rel=1e-3)
    for start, bare, decayed in zip(
        before, logs[0]["weights"], logs[1]["weights"], strict=True
    ):
        used = start * (len(start.shape) == 2)
        np.testing.assert_allclose(
            bare - decayed, RATE * DECAY * used, rtol=0.02, atol=1e-5
        )
