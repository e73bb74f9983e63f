"""A backbone and a head: where it is cut, and what a twin needs."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_incremental.networks import SingleNetwork


def test_everything_is_trained_and_nothing_frozen(make_base, x):
    base = make_base()
    assert base.base() is base
    assert base.frozen(x) is x and not base.has_frozen_part
    assert base.trained_units == slice(0, 2)
    logits, features = base.trained(x)
    np.testing.assert_array_equal(features, base.backbone(x, training=False))
    np.testing.assert_array_equal(logits, base.head(features))


def test_trunk_and_tail_are_the_backbone_and_share_its_layers(make_base, x):
    base = make_base()
    np.testing.assert_allclose(
        base.tail(base.trunk(x)), base.backbone(x), atol=1e-5
    )
    parts = [*base.trunk.variables, *base.tail.variables]
    assert {id(variable) for variable in parts} == {
        id(variable) for variable in base.backbone.variables
    }


@pytest.mark.parametrize(
    ("branch_at", "found", "share"),
    [
        ("cut", "cut", 0.5),
        (0.5, "cut", 0.5),
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        (None, None, None),
    ],
)
def test_the_branch_point_is_reported(make_base, branch_at, found, share):
    base = make_base(branch_at=branch_at)
    assert base.branch_at == found and base.shared_layers == share
    again = SingleNetwork.from_config(base.get_config())
    assert again.branch_at == found
    if found is None:
        assert base.trunk is base.tail is None


def test_growth_beyond_the_room_adds_columns_alone(make_base):
    base = make_base(capacity=2)
    variables = [id(variable) for variable in base.variables]
    base.grow(1)
    assert base.trained_head.allocated == 4
    more = [id(variable) for variable in base.variables]
    assert [item for item in more if item in variables] == variables


def test_a_twin_follows_a_head_that_has_grown_until_it_shrinks(make_base, x):
    base = make_base(capacity=2)
    twin = base.twin()
    base.grow(3)
    assert (
        twin.copy_from(base)
        and twin.trained_head.allocated == base.trained_head.allocated == 8
    )
    np.testing.assert_array_equal(twin(x)[0], base(x)[0])
    assert not twin.copy_from(make_base(capacity=2))
    assert not twin.copy_from(make_base(capacity=8))


def test_a_twin_normalises_like_an_adapted_backbone(x):
    def adapted(mean):
        norm = layers.Normalization()
        norm.adapt(np.random.default_rng(0).normal(mean, 9, (50, 4)))
        return SingleNetwork(
            keras.Sequential([keras.Input((4,)), norm, layers.Dense(2)])
        )

    base = adapted(20)
    base.grow(2)
    twin = base.twin()
    np.testing.assert_array_equal(twin(x)[0], base(x)[0])
    assert twin.copy_from(base)
    # Traced functions hold the statistics as constants.
    assert not twin.copy_from(adapted(30))


def test_freezing_reaches_nested_layers_and_is_undone():
    inner = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="frozen"),
            layers.Dense(3, name="open"),
        ]
    )
    inner.get_layer("frozen").trainable = False
    base = SingleNetwork(keras.Sequential([keras.Input((4,)), inner]))
    for _ in range(2):  # frozen twice, it still knows what was before
        base.freeze()
    assert not base.trainable_variables
    assert not inner.get_layer("open").trainable
    base.activate()
    assert not inner.get_layer("frozen").trainable
    assert inner.get_layer("open").trainable and base.head.trainable
    assert len(base.trainable_variables) == 4


def test_weights_of_another_number_of_classes_are_refused(make_base):
    one, other = make_base(units=2), make_base(units=3)
    one.set_weights(other.get_weights())
    with pytest.raises(ValueError, match=r"of 3 units.* has 2"):
        one.head.check_units()
    one.head.check_units()  # says its own again
