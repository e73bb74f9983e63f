"""Branch and Branches: old logits bit for bit, the newest's variables kept."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from keras_incremental.layers import Branch, Branches, ExpandableDense, Traced
from keras_incremental.graphs import clone_network

X = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
BASE = np.random.default_rng(1).normal(size=(5, 2)).astype("float32")
SEEDS = itertools.count()


def randomize(part):
    """Gives each weight, statistics included, values of its own."""
    random = np.random.default_rng(next(SEEDS))
    for weight in part.weights:
        if weight.dtype == "float32":
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return part


def chain(*stack, shape=(4,)):
    x = inputs = keras.Input(shape)
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


def dense(width=3, activation="tanh"):
    return randomize(chain(layers.Dense(width, activation=activation)))


def normalised(width=3):
    return randomize(
        chain(
            layers.Dense(width, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        )
    )


def branch_of(network, units=2, capacity=4):
    branch = Branch(network, ExpandableDense((units,), capacity=capacity))
    return randomize_head(branch)


def randomize_head(branch):
    for weight in branch.head.trainable_weights:
        value = np.random.default_rng(next(SEEDS)).normal(size=weight.shape)
        weight.assign(value)
    return branch


def learn(branches):
    """Changes all that training changes, batch statistics included."""
    newest = branches.newest
    newest(X, training=True)
    random = np.random.default_rng(next(SEEDS))
    for weight in newest.trainable_variables:
        weight.assign_add(random.normal(0, 0.1, weight.shape))


def raw(branches):
    parts = [branch.inference(X) for branch in branches.branches]
    return np.concatenate([BASE, *parts], axis=-1)


def state(branches):
    """All that `remove_newest` has to give back."""
    return {
        "identity": [id(weight) for weight in branches.weights],
        "parts": [id(branch) for branch in branches.branches],
        "heads": [branch.head.heads for branch in branches.branches],
        "trainable": [id(weight) for weight in branches.trainable_weights],
        "values": [weight.tolist() for weight in branches.get_weights()],
        "logits": branches([X, BASE]).numpy().tolist(),
    }


# Logits.


def test_logits_of_a_branch_are_those_computed_by_hand():
    branch = branch_of(dense())
    kernel, bias, head, head_bias = (w.numpy() for w in branch.weights[2:6])
    features = np.tanh(X @ kernel + bias)
    by_hand = features @ head[:, :2] + head_bias[:2]
    np.testing.assert_allclose(branch.features(X), features, atol=1e-6)
    np.testing.assert_allclose(branch(X), by_hand, atol=1e-5)
    np.testing.assert_allclose(branch.inference(X), by_hand, atol=1e-5)
    assert branch.units == 2


def test_a_branch_trains_with_batch_statistics_and_infers_without():
    branch = branch_of(normalised())
    before = branch(X, training=True).numpy()
    assert np.abs(before - branch(X, training=False)).max() > 0.01
    np.testing.assert_array_equal(
        branch.inference(X), branch(X, training=False)
    )


def test_the_logits_of_all_stand_in_order_of_arrival():
    one, two = branch_of(dense(), 2), branch_of(dense(5), 3)
    branches = Branches([one, two])
    parts = [BASE, one.inference(X), two.inference(X)]
    assert [part.shape[1] for part in parts] == [2, 2, 3]
    np.testing.assert_array_equal(
        branches([X, BASE]), np.concatenate(parts, axis=1)
    )
    np.testing.assert_array_equal(
        branches(X), np.concatenate(parts[1:], axis=1)
    )


def test_no_branches_leave_the_logits_of_the_base():
    branches = Branches()
    assert len(branches) == 0 and branches
    np.testing.assert_array_equal(branches([X, BASE]), BASE)
    with pytest.raises(IndexError):
        _ = branches.newest


def test_shapes_are_known_without_values():
    branches = Branches([branch_of(dense(), 2), branch_of(dense(5), 3)])
    assert branches(keras.Input((4,))).shape == (None, 5)
    both = [keras.Input((4,)), keras.Input((2,))]
    assert branches(both).shape == (None, 7)
    assert branches.branches[1](keras.Input((4,))).shape == (None, 3)


def test_a_new_branch_has_no_units_and_its_own_precision():
    branch = Branch(dense(), dtype="mixed_bfloat16")
    assert branch.units == 0 and branch.head.allocated == 16
    assert branch.head.compute_dtype == "bfloat16"
    assert branch.head.built


def test_a_traced_function_is_traced_once_and_not_tracked():
    calls = []

    def double(x):
        calls.append(1)
        return 2 * x

    traced = Traced(double)
    for size in (2, 2, 2):
        np.testing.assert_array_equal(traced.call(X[:size]), 2 * X[:size])
    assert len(calls) == 1
    assert isinstance(Branch(dense())._traced, Traced)
    assert not isinstance(traced, tf.Module)


# Old logits.


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sampled_from([2, 3]), min_size=2, max_size=5))
def test_old_logits_are_bit_equal_after_any_further_branches(widths):
    branches, parts = Branches(), [BASE]
    for units, width in enumerate(widths, start=1):
        branches.add(normalised(width), units)
        learn(branches)
        parts.append(branches.newest.inference(X).numpy())
        assert parts[-1].shape == (5, units)
        np.testing.assert_array_equal(
            raw(branches), np.concatenate(parts, axis=1)
        )
    assert len(branches) == len(widths)


def test_a_branch_keeps_its_calibration_when_others_come():
    branches = Branches([branch_of(dense())])
    branches.calibrate([2.0, 3.0], [0.5, -0.5])
    before = branches([X, BASE]).numpy()
    for width in (3, 4):
        branches.add(dense(width), 2)
        after = branches([X, BASE]).numpy()
        np.testing.assert_array_equal(after[:, :4], before)
        assert float(branches.newest.scale) == 1
        assert float(branches.newest.bias) == 0
        before = after[:, :4]


def test_a_twin_has_equal_logits_and_no_variable_in_common():
    branch = branch_of(normalised())
    branch.head.expand(3)
    branch.scale.assign(2.0)
    twin = branch.twin()
    np.testing.assert_array_equal(twin(X), branch(X))
    assert twin.head.heads == [slice(0, 2), slice(2, 5)]
    assert float(twin.scale) == 2
    mine = {id(weight) for weight in branch.weights}
    assert not mine & {id(weight) for weight in twin.weights}
    before = twin(X).numpy()
    randomize(branch)
    np.testing.assert_array_equal(twin(X), before)


# The newest.


def test_equal_networks_keep_the_variables_of_the_newest():
    branches = Branches([branch_of(normalised())])
    newest = branches.newest
    variables = [id(weight) for weight in newest.weights]
    for units in (1, 4, 2):
        network = normalised()
        assert not branches.add(network, units)
        assert branches.newest is newest
        assert [id(weight) for weight in newest.weights] == variables
        np.testing.assert_array_equal(
            newest.features(X), network(X, training=False)
        )
        assert newest.units == units


@pytest.mark.parametrize(
    "other",
    [
        lambda: dense(4),
        lambda: dense(3, "relu"),
        lambda: randomize(chain(layers.Dense(3, use_bias=False))),
        lambda: randomize(
            chain(layers.Dense(3, activation="tanh", dtype="mixed_float16"))
        ),
    ],
    ids=["width", "activation", "bias", "precision"],
)
def test_other_networks_become_the_newest_as_they_are(other):
    branches, network = Branches([branch_of(dense())]), other()
    old = branches.newest
    before = raw(branches)
    assert branches.add(network, 3)
    assert branches.branches[0] is old
    assert branches.newest.network is network
    np.testing.assert_array_equal(raw(branches)[:, :4], before)
    np.testing.assert_array_equal(branches.newest.features(X), network(X))


def test_the_first_branch_has_new_variables():
    assert Branches().add(dense(), 2)


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
@pytest.mark.parametrize(
    "copy",
    [
        lambda network, build: keras.models.clone_model(network),
        lambda network, build: network.from_config(network.get_config()),
        lambda network, build: build(),
    ],
    ids=["clone", "config", "other names"],
)
def test_equal_networks_are_known_by_what_they_do(build, copy):
    network = randomize(build())
    branches = Branches([branch_of(network)])
    newest, before = branches.newest, raw(branches)
    other = randomize(copy(network, build))
    assert not branches.add(other, 2)
    assert branches.newest is newest
    np.testing.assert_array_equal(raw(branches)[:, :4], before)
    np.testing.assert_array_equal(newest.features(X), other(X, training=False))
    branches.remove_newest()
    assert branches.newest is newest
    np.testing.assert_array_equal(raw(branches), before)


@pytest.mark.parametrize(
    "build", [normalised, shared_layer_network, operations_network]
)
def test_clones_of_clones_are_equal_networks(build):
    """As `PartialSharing` makes them."""
    branches = Branches()
    network = clone_network(randomize(build()), 1.0)
    assert branches.add(network, 2)
    for _ in range(3):
        assert not branches.add(clone_network(network, 1.0), 2)
        network = branches.branches[0].network


def test_a_train_function_of_the_newest_stays_valid():
    branches, traces = Branches([branch_of(normalised())]), []

    @tf.function
    def train(x):
        traces.append(1)
        with tf.GradientTape() as tape:
            logits = branches.newest(x, training=True)
            loss = tf.reduce_sum(logits**2)
        variables = branches.newest.trainable_variables
        return logits, tape.gradient(loss, variables)

    for units in (3, 1, 4):
        logits, gradients = train(X)
        np.testing.assert_allclose(
            logits, branches.newest(X, training=True), atol=1e-5
        )
        assert None not in gradients
        branches.add(normalised(), units)
    assert len(traces) == 1


# Trainable or not.


def test_only_the_newest_is_trainable():
    branches = Branches()
    for width in (3, 3, 4, 4, 3):
        branches.add(normalised(width), 2)
        newest = branches.newest
        # Kernel, gamma and beta of the network; kernel and bias of the head.
        assert len(newest.trainable_weights) == 5
        assert {id(w) for w in branches.trainable_weights} == {
            id(w) for w in newest.trainable_weights
        }
        assert [b.trainable for b in branches.branches[:-1]] == [
            False for _ in branches.branches[:-1]
        ]


def test_a_branch_appended_as_it_is_is_the_only_trainable_one():
    branches = Branches([branch_of(dense())])
    before, branch = raw(branches), branch_of(dense())
    branches.append(branch)
    assert branches.newest is branch
    assert [b.trainable for b in branches.branches] == [False, True]
    np.testing.assert_array_equal(raw(branches)[:, :4], before)
    np.testing.assert_array_equal(raw(branches)[:, 4:], branch.inference(X))


def test_branches_to_start_with_are_frozen_but_for_the_last():
    branches = Branches([branch_of(dense()) for _ in range(3)])
    assert [b.trainable for b in branches.branches] == [False, False, True]


def test_a_call_trains_nothing_and_moves_no_statistics():
    branches = Branches([branch_of(normalised())])
    before = branches.get_weights()
    branches([X, BASE], training=True)
    for old, new in zip(before, branches.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


# Removal.


@pytest.mark.parametrize("widths", [(3,), (3, 3), (3, 4), (3, 4, 4)])
@pytest.mark.parametrize("new_width", [3, 4])
def test_remove_newest_gives_everything_back(widths, new_width):
    branches = Branches()
    for width in widths:
        branches.add(normalised(width), 2)
        learn(branches)
    scales = np.arange(1, len(widths) + 2)
    branches.calibrate(scales, scales / 2)
    before = state(branches)
    branches.add(normalised(new_width), 3)
    learn(branches)
    branches.newest.scale.assign(9.0)
    branches.newest.bias.assign(9.0)
    branches.remove_newest()
    assert state(branches) == before
    for weight in branches.newest.network.weights:
        statistic = weight.name.startswith("moving")
        assert weight.trainable is not statistic


def test_the_only_branch_can_be_removed_and_one_added_again():
    branches = Branches()
    before = state(branches)
    branches.add(normalised(), 2)
    branches.remove_newest()
    assert state(branches) == before
    np.testing.assert_array_equal(branches([X, BASE]), BASE)
    assert branches.add(normalised(), 2)


def test_all_branches_can_be_removed_one_by_one():
    branches, states = Branches(), []
    for width in (3, 3, 4, 3, 3):
        states.append(state(branches))
        branches.add(normalised(width), 2)
        learn(branches)
    for before in reversed(states):
        branches.remove_newest()
        assert state(branches) == before


def test_a_branch_is_removed_from_a_head_that_has_grown():
    branches = Branches([branch_of(normalised(), 2, capacity=2)])
    before, heads = raw(branches), [branches.newest.head.heads]
    for units in (5, 3, 20):
        branches.add(normalised(), units)
        heads.append(branches.newest.head.heads)
        learn(branches)
    logits = raw(branches)
    assert branches.newest.head.allocated == 32
    for count, columns in ((3, 12), (2, 9), (1, 4)):
        branches.remove_newest()
        assert [b.head.heads for b in branches.branches] == heads[:count]
        np.testing.assert_array_equal(raw(branches), logits[:, :columns])
    np.testing.assert_array_equal(raw(branches), before)


def test_weights_are_listed_in_order_of_arrival():
    """So that those of one model suit another of the same config."""
    branches = Branches()
    for width in (3, 3, 4, 3, 3):
        branches.add(normalised(width), 2)
        learn(branches)
    in_order = [id(weight) for b in branches.branches for weight in b.weights]
    assert [id(weight) for weight in branches.weights[2:]] == in_order
    again = Branches.from_config(branches.get_config())
    again.set_weights(branches.get_weights())
    np.testing.assert_array_equal(raw(again), raw(branches))


# Calibration.


def test_calibration_is_scale_times_logits_plus_bias():
    one, two = branch_of(dense(), 2), branch_of(dense(), 1)
    branches = Branches([one, two])
    branches.calibrate([2.0, 0.5, 4.0], np.array([1.0, -1.0, 0.25]))
    first, second = one.inference(X).numpy(), two.inference(X).numpy()
    by_hand = [2 * BASE + 1, 0.5 * first - 1, 4 * second + 0.25]
    logits = branches([X, BASE]).numpy()
    np.testing.assert_array_equal(logits, np.concatenate(by_hand, axis=1))
    np.testing.assert_array_equal(branches(X), logits[:, 2:])
    np.testing.assert_array_equal(
        raw(branches), np.concatenate([BASE, first, second], axis=1)
    )
    assert [float(scale) for scale in branches.scales] == [2, 0.5, 4]
    assert [float(bias) for bias in branches.biases] == [1, -1, 0.25]


def test_calibration_is_not_trained():
    branches = Branches([branch_of(dense())])
    for variable in (*branches.scales, *branches.biases):
        assert not variable.trainable


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_scales_that_are_not_above_0_are_refused(scale):
    branches = Branches([branch_of(dense())])
    with pytest.raises(ValueError, match=r"expected all above 0"):
        branches.calibrate([3.0, scale], [1.0, 1.0])
    assert [float(s) for s in branches.scales] == [1, 1]
    assert [float(b) for b in branches.biases] == [0, 0]


@pytest.mark.parametrize(
    ("scales", "biases"), [([2.0], [1.0]), ([2.0, 2, 2], [1.0]), ([], [])]
)
def test_another_number_of_scales_or_biases_is_refused(scales, biases):
    branches = Branches([branch_of(dense())])
    with pytest.raises(ValueError, match="expected 2 of each"):
        branches.calibrate(scales, biases)
    assert [float(s) for s in branches.scales] == [1, 1]


# Capacity.


def test_reserve_makes_room_for_the_next_branch_alone():
    branches = Branches()
    assert not branches.reserve(100)
    branches.add(dense(), 3)
    assert branches.newest.head.allocated == 16
    # The head of the next branch starts from 0, not behind these 3 units.
    assert not branches.reserve(16)
    assert branches.reserve(17)
    assert branches.newest.head.allocated == 32
    assert not branches.reserve(32)
    variables = [id(weight) for weight in branches.newest.weights]
    assert not branches.add(dense(), 32)
    assert [id(weight) for weight in branches.newest.weights] == variables
    assert branches.branches[0].head.allocated == 32
    assert branches.branches[0].units == 3


def test_a_branch_without_room_says_that_it_has_new_variables():
    branches = Branches([branch_of(dense(), 2, capacity=2)])
    old, before = branches.newest, raw(branches)
    variables = len(old.weights)
    assert branches.add(dense(), 3)
    assert branches.newest is old and len(old.weights) > variables
    np.testing.assert_array_equal(raw(branches)[:, :4], before)
    assert raw(branches).shape == (5, 7)


def test_reserve_keeps_the_logits_and_the_order_of_weights():
    branches = Branches([branch_of(dense(), 2, capacity=2)])
    before = raw(branches)
    branches.reserve(20)
    np.testing.assert_array_equal(raw(branches), before)
    again = Branches.from_config(branches.get_config())
    again.set_weights(branches.get_weights())
    np.testing.assert_array_equal(raw(again), before)


# Saving.


def several():
    branches = Branches()
    for width, units in ((3, 2), (3, 1), (4, 20), (4, 3), (3, 2)):
        branches.add(normalised(width), units)
        learn(branches)
    random = np.random.default_rng(3)
    branches.calibrate(random.uniform(1, 2, 6), random.normal(size=6))
    return branches


def model_of(branches):
    inputs = [keras.Input((4,)), keras.Input((2,))]
    return keras.Model(inputs, branches(inputs))


def test_several_branches_come_back_from_a_file(tmp_path):
    branches = several()
    model = model_of(branches)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.layers[-1]
    np.testing.assert_array_equal(loaded([X, BASE]), model([X, BASE]))
    assert [b.units for b in again.branches] == [2, 1, 20, 3, 2]
    assert [b.trainable for b in again.branches] == [False] * 4 + [True]
    assert [w.shape for w in again.weights] == [
        w.shape for w in branches.weights
    ]
    assert len(again.trainable_weights) == len(branches.trainable_weights)
    before = raw(again)
    newest = again.newest
    again.add(normalised(3), 2)
    assert again.newest is newest
    again.add(normalised(5), 2)
    np.testing.assert_array_equal(raw(again)[:, : before.shape[1]], before)
    for _ in range(3):
        again.remove_newest()
    np.testing.assert_array_equal(raw(again), before[:, :-2])


def test_several_branches_are_served_from_a_saved_model(tmp_path):
    model = model_of(several())
    model.export(str(tmp_path / "saved"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(
        loaded.serve([X, BASE]), model([X, BASE]), rtol=1e-5, atol=1e-5
    )


def test_weights_alone_come_back_from_a_file(tmp_path):
    branches = several()
    model_of(branches).save_weights(tmp_path / "some.weights.h5")
    again = Branches.from_config(branches.get_config())
    model_of(again).load_weights(tmp_path / "some.weights.h5")
    np.testing.assert_array_equal(raw(again), raw(branches))


def test_a_loaded_sequential_branch_can_be_the_newest_again():
    branches = Branches([branch_of(sequential_network())])
    branches.add(dense(4), 2)
    again = Branches.from_config(branches.get_config())
    assert len(again.trainable_weights) == 4
    again.remove_newest()
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
        random = np.random.default_rng(next(SEEDS))
        weight.assign(random.normal(size=weight.shape))
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
        branch.features(X), by_hand(branch.network, X), atol=1e-5
    )
    twin = branch.twin()
    np.testing.assert_array_equal(twin(X), branch(X))
    np.testing.assert_array_equal(twin.inference(X), branch.inference(X))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("mean", [20, 30])
def test_branches_normalise_as_the_networks_added(nested, mean):
    branches = Branches([branch_of(adapted(20, nested))])
    before, features = raw(branches), []
    for _ in range(3):
        network = adapted(mean, nested)
        features.append(by_hand(network, X))
        branches.add(network, 2)
        after = raw(branches)
        np.testing.assert_array_equal(after[:, : before.shape[1]], before)
        before = after
    for branch, expected in zip(branches.branches[1:], features, strict=True):
        np.testing.assert_allclose(branch.features(X), expected, atol=1e-5)
        np.testing.assert_allclose(branch.inference(X), branch(X), atol=1e-5)
    while len(branches) > 1:
        branches.remove_newest()
        after = raw(branches)
        np.testing.assert_array_equal(after, before[:, : after.shape[1]])
        np.testing.assert_allclose(
            branches.newest.inference(X), branches.newest(X), atol=1e-5
        )


def test_equal_statistics_keep_the_newest_and_others_do_not():
    branches = Branches([branch_of(adapted(20))])
    assert not branches.add(adapted(20), 2)
    assert branches.add(adapted(30), 2)


def test_removal_gives_the_normalisation_back():
    branches = Branches([branch_of(adapted(20))])
    before = state(branches)
    branches.add(adapted(20), 2)
    learn(branches)
    branches.remove_newest()
    assert state(branches) == before


# Precision.


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_branches_in_mixed_precision(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        branches = Branches()
        for width in (3, 3, 4):
            branches.add(normalised(width), 2)
            learn(branches)
        branches.calibrate([1.0, 2.0, 3.0, 4.0], [0.0] * 4)
        model = model_of(branches)
        model.save(tmp_path / "model.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    before = branches([X, BASE])
    assert before.dtype == branches.compute_dtype == policy.split("_")[1]
    assert {w.dtype for w in branches.weights} == {"float32", "int32"}
    exact = Branches.from_config(in_float32(branches.get_config()))
    exact.set_weights(branches.get_weights())
    difference = tf.cast(before, "float32") - exact([X, BASE])
    assert 0 < np.abs(difference).max() < 0.5

    # Loaded, and grown, where the policy is another one.
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.layers[-1]
    np.testing.assert_array_equal(loaded([X, BASE]), before)
    again.add(normalised(5), 2)
    after = again([X, BASE])
    assert after.dtype == before.dtype
    np.testing.assert_array_equal(after[:, :8], before)


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
