"""What every kind of network promises."""

import json

import keras
import numpy as np
import pytest

from keras_incremental.networks import (
    BranchedNetwork,
    BranchingNetwork,
    FrozenTrunkNetwork,
    Network,
    OneHeadNetwork,
    SingleNetwork,
    TrainedTrunkNetwork,
)

BRANCHING = [BranchedNetwork, OneHeadNetwork, TrainedTrunkNetwork]
SINGLE = [SingleNetwork, FrozenTrunkNetwork]
KINDS = [*SINGLE, *BRANCHING]
FROZEN_TRUNK = [FrozenTrunkNetwork, BranchedNetwork, OneHeadNetwork]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def make_network(kind, make_base, learn):
    """Returns a function that makes a network of 2 + 3 learned classes."""
    return lambda: _network(kind, make_base, learn)


@pytest.fixture(scope="module")
def network(make_network):
    """Such a network for the tests that leave its parts as they are.

    Its values may be those that a test before has learned.
    """
    return make_network()


@pytest.fixture
def growing(make_network):
    """Such a network for a test that lets it grow."""
    return make_network()


def _network(kind, make_base, learn):
    base = make_base(kind=kind if kind in SINGLE else SingleNetwork)
    learn(base)
    network = arrive(kind.on(base) if kind in BRANCHING else base, 3)
    network.activate()
    learn(network)
    return network


def arrive(network, units):
    """Adds classes, with a branch where the kind has branches."""
    if isinstance(network, BranchingNetwork):
        network = network.with_branch()
    network.grow(units, seed=2)
    network.activate()
    return network


def values(network):
    return [variable.numpy() for variable in network.state_variables()]


def assert_equal(one, other):
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def ids(variables):
    return {id(variable) for variable in variables}


# Classes.


def test_heads_are_counted_in_order_of_arrival(network):
    assert network.heads == [slice(0, 2), slice(2, 5)]
    assert network.units == 5
    trained = network.trained_units
    assert trained.stop == 5
    heads = [index for index, head in enumerate(network.heads) for _ in
             range(head.start, head.stop)]  # fmt: skip
    of_unit = network.trained_head.head_of_unit().numpy()
    assert (of_unit == np.array(heads)[trained] - heads[trained.start]).all()
    assert network.trained_head.allocated >= trained.stop - trained.start


def test_growth_leaves_old_logits_equal_bit_for_bit(growing, learn, x):
    network = growing
    before = network(x)[0].numpy()
    network.grow(1)  # within the room there is, and beyond it
    np.testing.assert_array_equal(network(x)[0][:, :5], before)
    network.grow(20)
    np.testing.assert_array_equal(network(x)[0][:, :5], before)
    assert network(x)[0].shape == (5, 26)


def test_a_new_branch_leaves_old_logits_as_they_are(growing, x):
    network = growing
    before = network(x)[0].numpy()
    after = arrive(network, 2)(x)[0].numpy()
    if isinstance(network, OneHeadNetwork):
        # A wider head multiplies more numbers, in an order of its own.
        np.testing.assert_allclose(after[:, :5], before, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(after[:, :5], before)
    assert after.shape == (5, 7)


def test_shrinking_gives_heads_logits_and_values_back(growing, learn, x):
    network = growing
    before, state = network(x)[0].numpy(), values(network)
    for num_heads in (4, 3, 2):
        network.grow(2)
        network.grow(1)
        assert network.shrink(num_heads) is network
        assert len(network.heads) == num_heads
        assert network.shrink(2) is network
    assert network.heads == [slice(0, 2), slice(2, 5)]
    np.testing.assert_array_equal(network(x)[0], before)
    assert len(values(network)) == len(state)
    assert network.shrink(5) is network and network.units == 5


def test_head_weights_are_read_and_set_by_the_index_of_the_head(network, x):
    for index, units in ((0, 2), (1, 3), (-1, 3)):
        kernel, bias = network.head_weights(index)
        assert kernel.shape[1] == units and bias.shape == (units,)
        before, (logits, _) = network.head_weights(1 - index % 2), network(x)
        network.set_head_weights(index, 0 * kernel, bias + 7.5)
        rows = network(x)[0].numpy()
        np.testing.assert_array_equal(
            rows[:, network.heads[index]], np.tile(bias + 7.5, (5, 1))
        )
        assert_equal(network.head_weights(1 - index % 2), before)
        network.set_head_weights(index, kernel, bias)
        np.testing.assert_array_equal(network(x)[0], logits)
        assert_equal(network.head_weights(index), (kernel, bias))


def test_head_weights_give_the_logits_by_hand(network, x):
    logits, features = network(x)
    kernel, bias = network.head_weights(-1)
    np.testing.assert_allclose(
        features @ kernel + bias, logits[:, 2:], rtol=1e-5, atol=1e-5
    )


def test_head_weights_of_another_shape_are_refused(network):
    kernel, bias = network.head_weights(1)
    for wrong in ((kernel[:, 1:], bias), (kernel, bias[1:]), (kernel.T, bias)):
        with pytest.raises(ValueError, match="features by classes"):
            network.set_head_weights(1, *wrong)
    assert_equal(network.head_weights(1), (kernel, bias))


# Computing.


def test_the_trained_part_of_frozen_outputs_is_the_output(network, x):
    frozen = network.frozen(x)
    logits, features = network.trained(frozen)
    for found, found_features in (network.outputs(frozen), network(x)):
        # The old parts run traced, the newest does not.
        np.testing.assert_allclose(
            found[:, network.trained_units], logits, rtol=1e-5, atol=1e-5
        )
        np.testing.assert_allclose(found_features, features, atol=1e-5)
    np.testing.assert_allclose(network.features(frozen), features, atol=1e-5)
    assert features.shape == (5, network.feature_dim)
    assert network.has_frozen_part is (type(network) in FROZEN_TRUNK)


def test_training_uses_batch_statistics_and_moves_no_frozen_ones(network, x):
    frozen = network.frozen(x)
    inference = network.trained(frozen)[0]
    base = values(network.base())
    logits, _ = network.trained(frozen, training=True)
    assert np.abs(logits - inference).max() > 0.01
    if isinstance(network, TrainedTrunkNetwork):  # its base's tail is frozen
        trunk = len(network.trunk.variables)
        assert_equal(values(network.base())[trunk:], base[trunk:])
    elif isinstance(network, BranchingNetwork):
        assert_equal(values(network.base()), base)
    # Only a call of `trained` trains.
    before = values(network)
    network(x, training=False)
    assert_equal(values(network), before)


def test_frozen_outputs_do_not_change_while_the_rest_learns(network, learn, x):
    before = keras.tree.flatten(network.frozen(x))
    for _ in range(2):
        learn(network)
    assert_equal(keras.tree.flatten(network.frozen(x)), before)


def test_shapes_are_known_without_values(network):
    logits, features = network(keras.Input((4,)))
    assert features.shape == (None, network.feature_dim)
    assert logits.shape[-1] in (None, 5)


# State.


def test_a_network_comes_back_from_its_config(network, kind, x):
    again = kind.from_config(network.get_config())
    assert again.heads == network.heads
    for mine, theirs in zip(
        again.state_variables(), network.state_variables(), strict=True
    ):
        assert mine.shape == theirs.shape
        mine.assign(theirs)
    again.finalize_state()
    np.testing.assert_array_equal(again(x)[0], network(x)[0])
    assert len(again.trainable_variables) == len(network.trainable_variables)
    assert again.name == network.name


def test_a_network_comes_back_from_base_and_structure(
    network, kind, make_base, x
):
    structure = json.loads(json.dumps(network.structure()))
    base = make_base(units=0, kind=kind if kind in SINGLE else SingleNetwork)
    again = kind.with_structure(base, structure)
    again.activate()
    assert type(again) is kind and again.heads == network.heads
    for mine, theirs in zip(
        again.state_variables(), network.state_variables(), strict=True
    ):
        mine.assign(theirs)
    again.finalize_state()
    np.testing.assert_array_equal(again(x)[0], network(x)[0])
    assert len(again.trainable_variables) == len(network.trainable_variables)


@pytest.mark.slow
def test_a_keras_file_holds_weights_heads_and_flags(network, x, tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, network(inputs))
    model.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    again = loaded.layers[-1]
    assert type(again) is type(network) and again.heads == network.heads
    assert_equal(values(again), values(network))
    np.testing.assert_array_equal(again(x)[0], network(x)[0])
    assert len(again.trainable_variables) == len(network.trainable_variables)
    # It goes on growing.
    before = again(x)[0].numpy()
    after = arrive(again, 2)(x)[0].numpy()
    np.testing.assert_allclose(after[:, :5], before, rtol=1e-5, atol=1e-5)


def test_a_twin_is_equal_and_shares_no_variable(network, learn, x):
    twin = network.twin()
    assert_equal(values(twin), values(network))
    np.testing.assert_array_equal(twin(x)[0], network(x)[0])
    assert twin.heads == network.heads
    assert not ids(twin.state_variables()) & ids(network.state_variables())
    before = values(twin)
    learn(network)
    assert_equal(values(twin), before)


def test_a_twin_follows_or_says_that_it_cannot(growing, learn, x):
    network = growing
    twin = network.twin()
    before = values(twin)
    learn(network)
    network.grow(2)
    if twin.copy_from(network):
        assert_equal(values(twin), values(network))
        np.testing.assert_array_equal(twin(x)[0], network(x)[0])
        assert twin.heads == network.heads
    else:
        assert isinstance(network, BranchedNetwork)
        assert_equal(values(twin), before)


@pytest.fixture(scope="module")
def others(make_base):
    """Networks without a branch, with one, and with two; tests read them."""
    return [
        make_base(),
        BranchedNetwork(make_base()).with_branch(),
        OneHeadNetwork(make_base()).with_branch().with_branch(),
    ]


def test_a_network_of_another_kind_or_with_more_parts_is_not_followed(
    network, others
):
    twin = network.twin()
    before = values(twin)
    for other in others:
        if type(other) is type(network) is SingleNetwork:
            continue
        assert not twin.copy_from(other)
        assert_equal(values(twin), before)


def test_state_variables_are_all_variables_once(network):
    variables = network.state_variables()
    assert len(ids(variables)) == len(variables)
    assert ids(network.trainable_variables) <= ids(variables)
    # Keras' own list may hold the base's head as well, which is not used.
    assert ids(variables) <= ids(network.variables)


# What is trained.


def test_the_newest_part_alone_is_trainable(growing, kind):
    network = growing
    base = network.base()
    trainable = ids(network.trainable_variables)
    if kind in SINGLE:
        assert trainable == ids(base.trainable_variables)
        assert len(trainable) == 3 * (1 + (kind is SingleNetwork)) + 2
        return
    trunk = ids(base.trainable_variables)
    if kind is TrainedTrunkNetwork:  # kernel, gamma and beta of the trunk
        assert len(trunk) == 3
        assert trunk == ids(network.trunk.trainable_variables)
    else:
        assert not trunk
    after = arrive(network, 2)
    # Kernel, gamma and beta of the newest branch; the head's kernel and bias.
    assert len(after.trainable_variables) == len(trunk) + 3 + 2
    newest = after.branches[-1]
    assert ids(newest.trainable_variables) <= ids(after.trainable_variables)
    for branch in after.branches[:-1]:
        assert not branch.trainable_variables
    assert ids(base.trainable_variables) == trunk


@pytest.mark.parametrize("kind", BRANCHING)
def test_a_users_frozen_layers_come_back_when_the_branches_go(kind, make_base):
    base = make_base()
    base.backbone.layers[1].trainable = False
    flags = [layer.trainable for layer in base.backbone.layers]
    before = ids(base.trainable_variables)
    arrive(arrive(kind.on(base), 2), 2)
    assert not base.tail.trainable_variables
    base.activate()
    assert [layer.trainable for layer in base.backbone.layers] == flags
    assert ids(base.trainable_variables) == before


@pytest.mark.parametrize("kind", [BranchedNetwork, OneHeadNetwork])
def test_a_trunk_stays_frozen_when_the_branches_go(kind, make_base):
    network = arrive(kind.on(make_base(kind=FrozenTrunkNetwork)), 2)
    again = kind.from_config(network.get_config()).shrink(1)
    again.base().activate()
    assert type(again.base()) is FrozenTrunkNetwork
    assert not again.base().trunk.trainable_variables
    assert len(again.base().trainable_variables) == 3 + 2


def test_a_trunk_is_not_frozen_without_a_branch_point(make_base):
    with pytest.raises(ValueError, match=r"branch_at=.*cut_points"):
        make_base(branch_at=None, kind=FrozenTrunkNetwork)


@pytest.mark.parametrize("kind", BRANCHING)
def test_branches_need_a_branch_point_and_their_own_kind(kind, make_base):
    with pytest.raises(ValueError, match=r"branch_at=.*cut_points"):
        kind.on(make_base(branch_at=None))
    network = kind.on(make_base())
    assert kind.on(network) is network
    for other in {*BRANCHING} - {kind}:
        with pytest.raises(TypeError, match=rf"of a {kind.__name__}"):
            other.on(network)
    assert isinstance(network, Network) and network.branch_at == "cut"
    assert network.shared_layers == pytest.approx(0.5)
