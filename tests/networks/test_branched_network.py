"""Branches: old logits bit for bit, and the newest keeps its variables."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from keras_incremental.graphs import clone_network
from keras_incremental.layers import ExpandableDense
from keras_incremental.networks import BranchedNetwork, SingleNetwork, traced

X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
RANDOM = np.random.default_rng(1)


def randomized(part):
    """Gives each weight, statistics included, a value of its own."""
    for weight in part.weights:
        if weight.dtype == "float32":
            weight.assign(RANDOM.uniform(0.5, 1.5, weight.shape))
    return part


def chain(*stack, shape=(4,)):
    x = inputs = keras.Input(shape)
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


def dense(width=3, activation="tanh"):
    return randomized(chain(layers.Dense(width, activation=activation)))


def normalised(width=3):
    return randomized(
        chain(
            layers.Dense(width, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        )
    )


def branch_of(network, units=2, capacity=4):
    branch = SingleNetwork(
        network, ExpandableDense((units,), capacity=capacity)
    )
    for weight in branch.head.trainable_weights:
        weight.assign(RANDOM.normal(size=weight.shape))
    return branch


def network_of(*branches):
    """Branches of vectors, behind a base of two classes."""
    base = SingleNetwork(dense(2), branch_at=0.0, capacity=4)
    base.grow(2, seed=0)
    network = BranchedNetwork(base, branches)
    network.activate()
    return network


def add(network, part, units):
    """Adds a branch; returns whether other variables are trained now."""
    before = {id(variable) for variable in network.trainable_variables}
    assert network.with_branch(part) is network
    network.grow(units, seed=next(SEEDS))
    after = {id(variable) for variable in network.trainable_variables}
    return after != before


SEEDS = iter(range(10**9))


def learn(network):
    """Changes all that training changes, batch statistics included."""
    network.trained(X, training=True)
    for weight in network.trainable_variables:
        weight.assign_add(RANDOM.normal(0, 0.1, weight.shape))


def logits_of(network):
    return np.concatenate(network.part_logits(X), axis=-1)


def state(network):
    """All that `shrink` has to give back."""
    return {
        "identity": [id(weight) for weight in network.weights],
        "parts": [id(branch) for branch in network.branches],
        "heads": network.heads,
        "trainable": [id(weight) for weight in network.trainable_weights],
        "values": [weight.tolist() for weight in network.get_weights()],
        "logits": logits_of(network).tolist(),
    }


# Logits.


def test_logits_of_a_branch_are_those_computed_by_hand():
    branch = branch_of(dense())
    kernel, bias, head, head_bias = (
        weight.numpy() for weight in branch.trainable_weights
    )
    by_hand = np.tanh(X @ kernel + bias)
    for logits, features in (branch(X), branch.inference(X)):
        np.testing.assert_allclose(features, by_hand, atol=1e-6)
        np.testing.assert_allclose(
            logits, by_hand @ head[:, :2] + head_bias[:2], atol=1e-5
        )
    assert branch.units == 2


def test_a_branch_trains_with_batch_statistics_and_infers_without():
    branch = branch_of(normalised())
    before = branch(X, training=True)[0].numpy()
    inference = branch(X, training=False)[0]
    assert np.abs(before - inference).max() > 0.01
    np.testing.assert_allclose(branch.inference(X)[0], inference, atol=1e-5)


def test_the_logits_of_all_stand_in_order_of_arrival():
    network = network_of(branch_of(dense(), 2), branch_of(dense(5), 3))
    parts = network.part_logits(X)
    assert [part.shape[1] for part in parts] == [2, 2, 3]
    assert network.part_sizes == [2, 2, 3]
    np.testing.assert_array_equal(network(X)[0], np.concatenate(parts, axis=1))
    for part, branch in zip(parts[1:], network.branches, strict=True):
        np.testing.assert_array_equal(part, branch.inference(X)[0])
    assert network(X)[1].shape == (5, 5) and network.feature_dim == 5


def test_the_trunk_feeds_base_and_branches(make_base, x):
    network = BranchedNetwork(make_base()).with_branch().with_branch()
    network.grow(2, seed=0)
    trunk, tail = network.trunk, network.tail
    base = network.base()
    np.testing.assert_allclose(
        network.frozen(x), trunk(x, training=False), atol=1e-5
    )
    np.testing.assert_allclose(
        tail(trunk(x)), base.backbone(x, training=False), atol=1e-5
    )
    np.testing.assert_allclose(
        network.part_logits(network.frozen(x))[0],
        base.trained(x)[0],
        atol=1e-5,
    )
    assert network.networks == [
        tail,
        *(branch.backbone for branch in network.branches),
    ]


def test_dropout_of_trunk_and_base_is_off(x):
    """Keras switches off the batch statistics of frozen layers, not this."""
    backbone = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dropout(0.5, name="cut"),
            layers.Dropout(0.5),
        ]
    )
    base = SingleNetwork(backbone, branch_at="cut")
    base.grow(4, seed=0)
    network = BranchedNetwork(base).with_branch()
    network.grow(2, seed=0)
    frozen = network.frozen(x)
    np.testing.assert_array_equal(frozen, x)
    np.testing.assert_allclose(
        network.part_logits(frozen)[0], base.head(x), atol=1e-5
    )


def test_a_branch_starts_as_a_clone_of_the_base_s_own_part(make_base):
    network = BranchedNetwork(make_base()).with_branch()
    mine = network.branches[0].backbone.get_weights()
    for one, other in zip(mine, network.tail.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_branches_it_is_the_base():
    network = network_of()
    logits, features = network.base().trained(X)
    np.testing.assert_allclose(network(X)[0], logits, atol=1e-6)
    np.testing.assert_allclose(network(X)[1], features, atol=1e-6)
    np.testing.assert_allclose(network.features(X), features, atol=1e-6)


def test_a_traced_function_is_traced_once_and_not_tracked():
    calls = []

    def double(x):
        calls.append(1)
        return 2 * x

    function = traced(double)
    for size in (2, 2, 2):
        np.testing.assert_array_equal(function(X[:size]), 2 * X[:size])
    assert len(calls) == 1
    # What TensorFlow finds in a layer's attributes and writes.
    found = tf.types.experimental.PolymorphicFunction, tf.Module
    assert not isinstance(function, found)
    assert not isinstance(branch_of(dense())._inference, found)


# Old logits.


@settings(max_examples=4, deadline=None)
@given(st.lists(st.sampled_from([2, 3]), min_size=2, max_size=4))
def test_old_logits_are_bit_equal_after_any_further_branches(widths):
    network = network_of()
    parts = [logits_of(network)]
    for units, width in enumerate(widths, start=1):
        add(network, normalised(width), units)
        learn(network)
        parts.append(network.part_logits(X)[-1].numpy())
        assert parts[-1].shape == (5, units)
        np.testing.assert_array_equal(
            logits_of(network), np.concatenate(parts, axis=1)
        )
    assert len(network.branches) == len(widths)


def test_old_logits_are_bit_equal_behind_a_trunk(make_base, learn, x):
    network = BranchedNetwork(make_base())
    before = network(x)[0].numpy()
    for units in (2, 1):
        network.with_branch().grow(units, seed=units)
        learn(network)
        after = network(x)[0].numpy()
        np.testing.assert_array_equal(after[:, : before.shape[1]], before)
        before = after
    assert before.shape == (5, 5)


# The newest.


def test_equal_networks_keep_the_variables_of_the_newest():
    network = network_of(branch_of(normalised()))
    newest = network.branches[-1]
    variables = [id(weight) for weight in newest.weights]
    for units in (1, 4, 2):
        part = normalised()
        assert not add(network, part, units)
        assert network.branches[-1] is newest
        assert [id(weight) for weight in newest.weights] == variables
        np.testing.assert_array_equal(
            newest.backbone(X, training=False), part(X, training=False)
        )
        assert newest.units == units


@pytest.mark.parametrize(
    "other",
    [
        lambda: dense(4),
        lambda: dense(3, "relu"),
        lambda: randomized(chain(layers.Dense(3, use_bias=False))),
        lambda: randomized(
            chain(layers.Dense(3, activation="tanh", dtype="mixed_float16"))
        ),
    ],
    ids=["width", "activation", "bias", "precision"],
)
def test_other_networks_become_the_newest_as_they_are(other):
    network, part = network_of(branch_of(dense())), other()
    old, before = network.branches[-1], logits_of(network)
    assert add(network, part, 3)
    assert network.branches[0] is old
    assert network.branches[-1].backbone is part
    np.testing.assert_array_equal(logits_of(network)[:, :4], before)
    np.testing.assert_array_equal(network.trained(X)[1], part(X))


def shared_layer_network():
    layer = layers.Dense(4, activation="tanh")
    return chain(layer, layer)


def operations_network():
    x = keras.Input((4,))
    y = layers.Dropout(0.5)(layers.Dense(4)(x))
    return keras.Model(x, keras.ops.relu(y) + x * 2)


def nested_network():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.BatchNormalization()]
    )
    return chain(inner, layers.Dense(2))


def sequential_network():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.ReLU()])


@pytest.mark.parametrize(
    "build",
    [
        normalised,
        shared_layer_network,
        operations_network,
        nested_network,
        sequential_network,
    ],
)
def test_equal_networks_are_known_by_what_they_do(build):
    """Clones, those from a config, and those made again by other names."""
    part = randomized(build())
    network = network_of(branch_of(part))
    newest, before = network.branches[-1], logits_of(network)
    for other in (
        keras.models.clone_model(part),
        part.from_config(part.get_config()),
        build(),
    ):
        randomized(other)
        assert not add(network, other, 2)
        assert network.branches[-1] is newest
        np.testing.assert_array_equal(logits_of(network)[:, :4], before)
        np.testing.assert_array_equal(
            newest.backbone(X, training=False), other(X, training=False)
        )
        network.shrink(2)
        assert network.branches == [newest]
        np.testing.assert_array_equal(logits_of(network), before)


@pytest.mark.parametrize(
    "build", [normalised, shared_layer_network, operations_network]
)
def test_clones_of_clones_are_equal_networks(build):
    """As `PartialSharing` makes them."""
    network = network_of()
    part = clone_network(randomized(build()))
    assert add(network, part, 2)
    for _ in range(3):
        assert not add(network, clone_network(part), 2)
        part = network.branches[0].backbone


def test_a_train_function_of_the_newest_stays_valid():
    network, traces = network_of(branch_of(normalised())), []

    @tf.function
    def train(x):
        traces.append(1)
        with tf.GradientTape() as tape:
            logits, _ = network.trained(x, training=True)
            loss = tf.reduce_sum(logits**2)
        return logits, tape.gradient(loss, network.trainable_variables)

    for units in (3, 1, 4):
        logits, gradients = train(X)
        np.testing.assert_allclose(
            logits, network.trained(X, training=True)[0], atol=1e-5
        )
        assert None not in gradients
        add(network, normalised(), units)
    assert len(traces) == 1


# Trainable or not.


def test_only_the_newest_is_trainable():
    network = network_of()
    for width in (3, 3, 4, 3):
        add(network, normalised(width), 2)
        newest = network.branches[-1]
        # Kernel, gamma and beta of the network; kernel and bias of the head.
        assert len(newest.trainable_weights) == 5
        assert {id(weight) for weight in network.trainable_weights} == {
            id(weight) for weight in newest.trainable_weights
        }
        assert not any(branch.trainable for branch in network.branches[:-1])


def test_branches_to_start_with_are_frozen_but_for_the_last():
    network = network_of(*(branch_of(dense()) for _ in range(3)))
    flags = [branch.trainable for branch in network.branches]
    assert flags == [False, False, True]


def test_a_call_trains_nothing_and_moves_no_statistics():
    network = network_of(branch_of(normalised()))
    before = network.get_weights()
    network(X, training=True)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


# Removal.


@pytest.mark.parametrize("widths", [(3,), (3, 4, 4)])
@pytest.mark.parametrize("new_width", [3, 4])
@pytest.mark.parametrize("units", [3, None], ids=["grown", "not yet grown"])
def test_shrinking_gives_everything_back(widths, new_width, units):
    network = network_of()
    for width in widths:
        add(network, normalised(width), 2)
        learn(network)
    before = state(network)
    network.with_branch(normalised(new_width))
    if units:
        network.grow(units)
        learn(network)
    assert network.shrink(1 + len(widths)) is network
    assert state(network) == before
    for weight in network.branches[-1].backbone.weights:
        statistic = weight.name.startswith("moving")
        assert weight.trainable is not statistic


def test_without_its_only_branch_the_base_goes_on():
    network = network_of()
    before = state(network)
    add(network, normalised(), 2)
    base = network.shrink(1)
    assert base is network.base()
    assert state(network) == before
    assert add(network, normalised(), 2)


def test_all_branches_can_be_removed_one_by_one():
    network, states = network_of(), []
    for width in (3, 3, 4, 3):
        states.append(state(network))
        add(network, normalised(width), 2)
        learn(network)
    for count, before in reversed([*enumerate(states, start=1)]):
        network.shrink(count)
        assert state(network) == before


def test_a_branch_is_removed_from_a_head_that_has_grown():
    network = network_of(branch_of(normalised(), 2, capacity=2))
    for units in (5, 3, 20):
        add(network, normalised(), units)
        learn(network)
    logits, heads = logits_of(network), network.heads
    assert network.branches[-1].head.allocated == 32
    for count, columns in ((4, 12), (3, 9), (2, 4)):
        network.shrink(count)
        assert network.heads == heads[:count]
        np.testing.assert_array_equal(logits_of(network), logits[:, :columns])


def test_weights_are_listed_in_order_of_arrival():
    """So that those of one model suit another of the same config."""
    network = network_of()
    for width in (3, 3, 4, 3):
        add(network, normalised(width), 2)
        learn(network)
    in_order = [id(w) for branch in network.branches for w in branch.weights]
    assert [id(w) for w in network.weights][-len(in_order) :] == in_order
    again = BranchedNetwork.from_config(network.get_config())
    again.set_weights(network.get_weights())
    np.testing.assert_array_equal(logits_of(again), logits_of(network))


# Capacity.


def test_a_branch_within_the_room_of_the_newest_makes_no_variable():
    network = network_of()
    add(network, dense(), 3)
    assert network.trained_head.allocated == 16
    # The head of the next branch starts from 0, not behind these 3 units.
    assert not add(network, dense(), 16)
    assert network.trained_head.allocated == 16


def test_a_branch_without_room_gets_more_variables():
    network = network_of(branch_of(dense(), 2, capacity=2))
    old, before = network.branches[-1], logits_of(network)
    variables = len(old.weights)
    assert add(network, dense(), 3)
    assert network.branches[-1] is old and len(old.weights) > variables
    np.testing.assert_array_equal(logits_of(network)[:, :4], before)
    assert logits_of(network).shape == (5, 7)
    again = BranchedNetwork.from_config(network.get_config())
    again.set_weights(network.get_weights())
    np.testing.assert_array_equal(logits_of(again), logits_of(network))


# Saving.


def several():
    network = network_of()
    for width, units in ((3, 2), (3, 1), (4, 20), (4, 3), (3, 2)):
        add(network, normalised(width), units)
        learn(network)
    return network


def model_of(network):
    inputs = keras.Input((4,))
    return keras.Model(inputs, network(inputs)[0])


@pytest.mark.slow
def test_several_branches_come_back_from_files(tmp_path):
    network = several()
    model = model_of(network)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    (again,) = (
        layer for layer in loaded.layers if isinstance(layer, BranchedNetwork)
    )
    np.testing.assert_array_equal(loaded(X), model(X))
    assert again.part_sizes == [2, 2, 1, 20, 3, 2]
    assert [b.trainable for b in again.branches] == [False] * 4 + [True]
    assert len(again.trainable_weights) == len(network.trainable_weights)
    # Weights alone.
    model.save_weights(tmp_path / "some.weights.h5")
    fresh = BranchedNetwork.from_config(network.get_config())
    model_of(fresh).load_weights(tmp_path / "some.weights.h5")
    np.testing.assert_array_equal(logits_of(fresh), logits_of(network))
    # It goes on growing, and shrinking.
    before, newest = logits_of(again), again.branches[-1]
    add(again, normalised(3), 2)
    assert again.branches[-1] is newest
    add(again, normalised(5), 2)
    after = logits_of(again)
    np.testing.assert_array_equal(after[:, : before.shape[1]], before)
    again.shrink(5)
    np.testing.assert_array_equal(logits_of(again), before[:, :-2])


def test_a_loaded_sequential_branch_can_be_the_newest_again():
    network = network_of(branch_of(sequential_network()))
    add(network, dense(4), 2)
    again = BranchedNetwork.from_config(network.get_config())
    assert len(again.trainable_weights) == 4
    again.shrink(2)
    assert len(again.trainable_weights) == 4


# Normalization, which computes with constants made of its weights.


def adapted(mean, nested=False):
    norm = layers.Normalization()
    data = np.random.default_rng(5).normal(mean, 7, (50, 4))
    stack = [norm, layers.Dense(3, activation="tanh")]
    if nested:
        inner = keras.Sequential([keras.Input((4,)), *stack])
        network = chain(inner)
    else:
        network = chain(*stack)
    for weight in stack[1].weights:
        weight.assign(RANDOM.normal(size=weight.shape))
    norm.adapt(data.astype("float32"))
    return network


def by_hand(network, x):
    """`tanh` of the normalised input times the kernel plus the bias."""
    mean, variance, _, kernel, bias = network.get_weights()
    return np.tanh((x - mean) / np.sqrt(variance) @ kernel + bias)


@pytest.mark.parametrize("nested", [False, True])
def test_a_twin_normalises_as_its_branch(nested):
    branch = branch_of(adapted(20, nested))
    np.testing.assert_allclose(
        branch(X)[1], by_hand(branch.backbone, X), atol=1e-5
    )
    twin = branch.twin()
    np.testing.assert_array_equal(twin(X)[0], branch(X)[0])
    np.testing.assert_array_equal(twin.inference(X)[0], branch.inference(X)[0])


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("mean", [20, 30])
def test_branches_normalise_as_the_networks_added(nested, mean):
    network = network_of(branch_of(adapted(20, nested)))
    before, features = logits_of(network), []
    for _ in range(2):
        part = adapted(mean, nested)
        features.append(by_hand(part, X))
        add(network, part, 2)
        after = logits_of(network)
        np.testing.assert_array_equal(after[:, : before.shape[1]], before)
        before = after
    for branch, expected in zip(network.branches[1:], features, strict=True):
        np.testing.assert_allclose(branch(X)[1], expected, atol=1e-5)
        np.testing.assert_allclose(branch.inference(X)[1], expected, atol=1e-5)
    for count in (3, 2):
        network.shrink(count)
        after = logits_of(network)
        np.testing.assert_array_equal(after, before[:, : after.shape[1]])
        newest = network.branches[-1]
        np.testing.assert_allclose(
            newest.inference(X)[0], newest(X)[0], atol=1e-5
        )


def test_equal_statistics_keep_the_newest_and_others_do_not():
    network = network_of(branch_of(adapted(20)))
    before = state(network)
    assert not add(network, adapted(20), 2)
    learn(network)
    network.shrink(2)
    assert state(network) == before
    assert add(network, adapted(30), 2)


# Precision.


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_branches_in_mixed_precision(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        network = network_of()
        for width in (3, 3, 4):
            add(network, normalised(width), 2)
            learn(network)
        model = model_of(network)
        model.save(tmp_path / "model.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    before = network(X)[0]
    assert before.dtype == policy.removeprefix("mixed_")
    assert {weight.dtype for weight in network.weights} == {"float32", "int32"}
    exact = BranchedNetwork.from_config(in_float32(network.get_config()))
    exact.set_weights(network.get_weights())
    difference = tf.cast(before, "float32") - exact(X)[0]
    assert 0 < np.abs(difference).max() < 0.5

    # Loaded, and grown, where the policy is another one.
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = next(
        layer for layer in loaded.layers if isinstance(layer, BranchedNetwork)
    )
    np.testing.assert_array_equal(loaded(X), before)
    add(again, normalised(5), 2)
    after = tf.concat(again.part_logits(X)[:-1], axis=-1)
    assert after.dtype == before.dtype
    np.testing.assert_array_equal(after, before)


def in_float32(item):
    """A config with all its dtype policies replaced."""
    if isinstance(item, dict):
        return {
            key: "float32" if key == "dtype" else in_float32(value)
            for key, value in item.items()
        }
    if isinstance(item, list | tuple):
        return [in_float32(value) for value in item]
    return item
