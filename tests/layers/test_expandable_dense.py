"""ExpandableDense: growth without traces, old logits bit for bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_incremental.layers import ExpandableDense

X = np.random.default_rng(0).normal(size=(5, 7)).astype("float32")


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=6), st.integers(1, 8))
def test_old_logits_are_bit_equal_after_every_expand(sizes, capacity):
    head = ExpandableDense((sizes[0],), capacity=capacity)
    before = head(X).numpy()
    for size in sizes[1:]:
        head.expand(size)
        after = head(X).numpy()
        np.testing.assert_array_equal(after[:, : before.shape[1]], before)
        assert after.shape == (5, before.shape[1] + size)
        before = after


def test_logits_are_a_dense_layer_over_all_heads():
    head = ExpandableDense((2, 3), capacity=4, bias_initializer="ones")
    logits = head(X).numpy()
    kernel = np.concatenate([k.numpy() for k in head._kernels], axis=1)[:, :5]
    np.testing.assert_allclose(logits, X @ kernel + 1, atol=1e-5)
    assert head.heads == [slice(0, 2), slice(2, 5)]
    assert head.head_of_unit().numpy().tolist() == [0, 0, 1, 1, 1]


def test_growth_within_the_capacity_needs_no_new_trace_or_variable():
    head = ExpandableDense((1,), capacity=16)
    head(X)
    traces, variables = [], len(head.weights)

    @tf.function
    def logits(x):
        traces.append(1)
        return head(x)

    for units in range(1, 16):
        assert logits(X).shape == (5, units)
        head.expand(1)
    assert len(traces) == 1
    assert len(head.weights) == variables


def test_capacity_doubles_when_it_is_used_up():
    head = ExpandableDense((3,), capacity=4)
    head(X)
    assert not head.reserve(1)
    assert head.reserve(2) and head.allocated == 8
    head.expand(6)
    assert head.allocated == 16 and head.units == 9


def test_a_new_head_is_initialised_by_its_own_size():
    head = ExpandableDense(capacity=8, kernel_initializer="ones")
    head(X)
    head.expand(3)
    kernel = head._kernels[0].numpy()
    assert (kernel[:, :3] == 1).all() and (kernel[:, 3:] == 0).all()


@pytest.mark.parametrize("seed", [None, 3, -3])
def test_heads_of_one_size_start_apart_and_the_same_in_each_run(seed):
    def kernel():
        keras.utils.set_random_seed(0)
        layer = ExpandableDense(
            (3, 3),
            kernel_initializer=keras.initializers.GlorotUniform(seed),
            bias_initializer=keras.initializers.RandomNormal(seed=seed),
        )
        layer.build((None, 500))
        for _ in range(6):
            layer.expand(3)
        columns = layer(np.concatenate([np.eye(500), np.zeros((1, 500))]))
        return np.array(columns)

    columns = kernel()
    assert columns.shape == (501, 24)
    assert len({value.item() for value in columns[-1]}) == 24  # the biases
    correlation = np.corrcoef((columns - columns[-1])[:-1].T)
    assert np.abs(correlation - np.eye(24)).max() < 0.2
    np.testing.assert_array_equal(columns, kernel())


def test_an_initializer_without_a_seed_is_called_as_it_is():
    layer = ExpandableDense((2,), kernel_initializer="ones")
    layer.build((None, 3))
    layer.expand(2)
    np.testing.assert_array_equal(layer(np.ones((1, 3))), [[3, 3, 3, 3]])
    drawn = ExpandableDense(
        kernel_initializer=lambda shape, dtype: np.full(shape, 2.0)
    )
    drawn.build((None, 3))
    drawn.expand(2), drawn.expand(2)
    np.testing.assert_array_equal(drawn(np.ones((1, 3))), [[6, 6, 6, 6]])


def test_unused_columns_get_no_gradient():
    head = ExpandableDense((3,), capacity=8)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(head(X) ** 2)
    gradient = tape.gradient(loss, head._kernels[0].value).numpy()
    assert (gradient[:, :3] != 0).all() and (gradient[:, 3:] == 0).all()


def test_truncate_takes_heads_back():
    head = ExpandableDense((2,), capacity=4)
    before = head(X).numpy()
    head.expand(5)
    head.truncate(1)
    np.testing.assert_array_equal(head(X).numpy(), before)
    head.expand(1)
    assert head.heads == [slice(0, 2), slice(2, 3)]


def test_copy_from_takes_over_heads_and_values():
    one = ExpandableDense((2,), capacity=2)
    one(X)
    two = ExpandableDense.from_config(one.get_config())
    two(X)
    one.expand(3)
    two.copy_from(one)
    np.testing.assert_array_equal(two(X).numpy(), one(X).numpy())
    assert two.heads == one.heads


@pytest.mark.parametrize("arguments", [{"capacity": 0}, {"heads": (2, 0)}])
def test_sizes_below_one_are_refused(arguments):
    with pytest.raises(ValueError, match="1 or more"):
        ExpandableDense(**arguments)


def test_expand_of_an_unbuilt_layer_says_how_to_build_it():
    with pytest.raises(ValueError, match="Call the layer"):
        ExpandableDense().expand(1)


def test_a_failing_growth_leaves_the_layer_locked(monkeypatch):
    head = ExpandableDense((1,), capacity=1)
    head(X)

    def fail(*args, **kwargs):
        raise RuntimeError("no memory")

    monkeypatch.setattr(head, "add_weight", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        head.expand(1)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="cannot add new elements"):
        head.new_weight = keras.Variable([1.0])


def test_allocated_blocks_come_back_with_the_config():
    head = ExpandableDense((2,), capacity=2)
    head(X)
    head.reserve(5)
    again = ExpandableDense.from_config(head.get_config())
    again(X)
    assert again.allocated == head.allocated == 8
    again.set_weights(head.get_weights())
    np.testing.assert_array_equal(again(X).numpy(), head(X).numpy())


def test_head_weights_are_read_and_written_across_blocks():
    head = ExpandableDense((3,), capacity=4)
    head(X)
    head.expand(6)  # of the first block's last column, and of two more blocks
    kernel, bias = head.head_weights(-1)
    np.testing.assert_allclose(
        head(X)[:, 3:], X @ kernel + bias, rtol=1e-5, atol=1e-5
    )
    old = head(X)[:, :3].numpy()
    head.set_head_weights(1, kernel + 1, bias - 1)
    np.testing.assert_array_equal(head.head_weights(1)[0], kernel + 1)
    np.testing.assert_allclose(
        head(X)[:, 3:], X @ (kernel + 1) + bias - 1, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(head(X)[:, :3], old)


def test_a_widened_layer_has_equal_logits_whatever_the_new_features():
    head = ExpandableDense((3, 4), capacity=4, bias_initializer="ones")
    head(X)
    wider = head.widened(9)
    assert wider.heads == head.heads and wider.allocated == head.allocated
    for more in (0.0, 5.0):
        features = np.concatenate([X, np.full((5, 2), more, "float32")], 1)
        np.testing.assert_allclose(wider(features), head(X), atol=1e-5)
    assert wider.head_of_unit().numpy().tolist() == [0] * 3 + [1] * 4
    wider.expand(1)
    assert wider.head_weights(2)[0].shape == (9, 1)


def test_room_of_another_layer_is_there_or_can_be_added():
    small, large = (ExpandableDense(capacity=2) for _ in range(2))
    small(X), large(X)
    large.expand(3)
    assert small.has_room_of(large) and small.has_room_of(small)
    assert not large.has_room_of(small)
    assert not small.has_room_of(ExpandableDense(capacity=4))


def test_heads_that_were_taken_back_have_no_columns_in_a_graph():
    head = ExpandableDense((3,), capacity=8)
    head(X)
    traced = tf.function(lambda x: head(x))
    before = traced(X).numpy()
    head.expand(2)
    assert traced(X).shape == (5, 5)
    head.truncate(1)
    np.testing.assert_array_equal(traced(X).numpy(), before)


def test_the_kernel_of_every_block_is_regularised():
    head = ExpandableDense((2,), 2, kernel_regularizer=keras.regularizers.L2(1))
    head(X)
    head.expand(3)
    kernels = [w for w in head.trainable_weights if "kernel" in w.name]
    assert len(kernels) == 3
    expected = sum(np.square(np.asarray(kernel)).sum() for kernel in kernels)
    np.testing.assert_allclose(sum(head.losses), expected, rtol=1e-6)
