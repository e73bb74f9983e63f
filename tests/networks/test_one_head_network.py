"""One head on the features of all branches."""

import keras
import numpy as np
from keras import layers

from keras_incremental.networks import OneHeadNetwork, SingleNetwork


def test_the_head_sees_the_features_of_base_and_branches(make_base, learn, x):
    network = OneHeadNetwork(make_base()).with_branch()
    network.activate()
    network.grow(3, seed=0)
    learn(network)
    trunk = network.trunk(x, training=False)
    parts = [part(trunk, training=False) for part in network.networks]
    by_hand = np.concatenate(parts, axis=1)
    logits, features = network(x)
    np.testing.assert_allclose(features, by_hand, atol=1e-5)
    np.testing.assert_allclose(logits, network.head(by_hand), atol=1e-5)
    assert network.feature_dim == 4


def test_old_features_and_trunk_outputs_are_what_is_frozen(make_base, x):
    network = OneHeadNetwork(make_base()).with_branch().with_branch()
    outputs, features = network.frozen(x)
    np.testing.assert_allclose(outputs, network.trunk(x), atol=1e-5)
    parts = [part(outputs, training=False) for part in network.networks[:-1]]
    np.testing.assert_allclose(
        features, np.concatenate(parts, axis=1), atol=1e-5
    )


def test_a_new_branch_has_no_say_until_it_is_trained(make_base, learn, x):
    network = OneHeadNetwork(make_base()).with_branch()
    network.grow(2, seed=0)
    network.activate()
    learn(network)
    wider = network.with_branch()
    for index in range(2):
        kernel, bias = wider.head_weights(index)
        old_kernel, old_bias = network.head_weights(index)
        np.testing.assert_array_equal(kernel[:4], old_kernel)
        assert not kernel[4:].any()
        np.testing.assert_array_equal(bias, old_bias)
    wider.grow(1, seed=1)
    assert wider.head_weights(2)[0].all()  # new classes see all features


def test_the_network_before_a_branch_stays_what_it_was(make_base, learn, x):
    """So that a task is undone by going back to it."""
    network = OneHeadNetwork(make_base()).with_branch()
    network.activate()
    before = network(x)[0].numpy()
    trainable = [id(variable) for variable in network.trainable_variables]
    wider = network.with_branch()
    wider.grow(2)
    wider.activate()
    learn(wider)
    np.testing.assert_array_equal(network(x)[0], before)
    network.activate()
    assert [id(v) for v in network.trainable_variables] == trainable


def test_a_branch_layer_that_does_something_else_is_not_followed(make_base):
    def network_with(activation):
        branch = keras.Sequential(
            [keras.Input((3,)), layers.Dense(2, activation=activation)]
        )
        return OneHeadNetwork(make_base()).with_branch(branch)

    twin = network_with("tanh").twin()
    assert twin.copy_from(network_with("tanh"))
    assert not twin.copy_from(network_with("relu"))


def test_a_twin_normalises_like_an_adapted_branch(make_base, x):
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(3, 2, (50, 3)))
    branch = keras.Sequential([keras.Input((3,)), norm, layers.Dense(2)])
    network = OneHeadNetwork(make_base()).with_branch(branch)
    network.grow(2)
    for part in (network, network.with_branch()):  # the newest, and an old one
        twin = part.twin()
        np.testing.assert_array_equal(twin(x)[0], part(x)[0])


def test_der_shares_no_layers(randomize, x):
    """`branch_at=0`: each branch is a whole network on the images."""
    backbone = randomize(
        keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu")])
    )
    base = SingleNetwork(backbone, branch_at=0.0, capacity=8)
    base.grow(2, seed=0)
    before = base(x)[0].numpy()
    network = OneHeadNetwork.on(base).with_branch()
    np.testing.assert_allclose(network(x)[0], before, atol=1e-5)
    assert network.frozen(x)[0] is x
    # A branch head is as large as what a branch adds to the one head.
    (head,) = network.branch_heads()
    assert head.units == 2
