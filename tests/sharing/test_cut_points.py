"""The branch points of a network: what lies before each, by hand."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_incremental as ki
from keras_incremental.sharing import CutPoint, cut_points


def convolutions(top=()):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(4, 3, padding="same", use_bias=False, name="a"),
            layers.BatchNormalization(name="a_norm"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(8, 3, padding="same", name="b"),
            *top,
        ],
        name="net",
    )


# Multiply-accumulates of a: 8*8*4*9*1; of b: 4*4*8*9*4.
MACS_A, MACS_B = 2304, 4608
# Parameters of a: 36, of its normalisation: 16, of b: 288 + 8.
ALL = 36 + 16 + 296


def test_shares_are_those_counted_by_hand():
    first, *rest = cut_points(
        convolutions([layers.GlobalAveragePooling2D(name="features")])
    )
    assert (first.layers, first.parameters, first.macs) == (0, 0, 0)
    macs = MACS_A / (MACS_A + MACS_B)
    assert macs == 1 / 3
    assert rest == [
        CutPoint("a", 1 / 2, 36 / ALL, macs),
        CutPoint("a_norm", 1 / 2, 52 / ALL, macs),
        CutPoint("pool", 1 / 2, 52 / ALL, macs),
        CutPoint("b", 1.0, 1.0, 1.0),
        CutPoint("features", 1.0, 1.0, 1.0),
    ]


def test_feature_maps_are_pooled_as_by_the_classifier():
    points = cut_points(convolutions())
    assert [point.name for point in points[1:]] == [
        "a", "a_norm", "pool", "b", "net_pool",
    ]  # fmt: skip
    assert points[1].macs == 1 / 3
    assert points[-1] == CutPoint("net_pool", 1.0, 1.0, 1.0)
    model = ki.IncrementalClassifier(convolutions(), branch_at="pool")
    assert model.network.shared_layers == points[3].layers


def test_a_sequential_model_built_by_a_batch_is_for_any_batch_size():
    network = keras.Sequential([layers.Dense(4, name="a"), layers.ReLU()])
    network(np.zeros((2, 3), "float32"))
    assert [point.macs for point in cut_points(network)] == [0, 1, 1]


def residual_network():
    x = inputs = keras.Input((4, 4, 2), name="image")
    x = layers.Conv2D(2, 1, use_bias=False, name="stem")(x)
    inner = layers.Conv2D(2, 3, padding="same", use_bias=False, name="c")(x)
    x = layers.Add(name="add")([inner, x])
    x = layers.Flatten(name="flat")(x)
    return keras.Model(inputs, layers.Dense(10, name="features")(x))


def test_both_paths_of_a_block_lie_before_its_end():
    stem, block, dense = 16 * 2 * 2, 16 * 2 * 9 * 2, 32 * 10
    macs = stem + block + dense
    parameters = 4 + 36 + 330
    shared = ((stem + block) / macs, 40 / parameters)
    assert cut_points(residual_network()) == [
        CutPoint("image", 0, 0, 0),
        CutPoint("stem", 1 / 3, 4 / parameters, stem / macs),
        CutPoint("add", 2 / 3, shared[1], shared[0]),
        CutPoint("flat", 2 / 3, shared[1], shared[0]),
        CutPoint("features", 1, 1, 1),
    ]


def test_every_point_but_the_last_is_a_branch_point_by_name():
    network = residual_network()
    for point in cut_points(network)[:-1]:
        model = ki.IncrementalClassifier(network, branch_at=point.name)
        assert model.network.shared_layers == point.layers
        assert model.branch_at == (point.name if point.layers else 0.0)


def test_nested_models_are_opened():
    inner = convolutions([layers.Flatten(name="flat")])
    x = keras.Input((8, 8, 1), name="outer_image")
    network = keras.Model(x, layers.Dense(3, name="top")(inner(x)))
    points = {point.name: point for point in cut_points(network)}
    assert list(points) == [
        "outer_image", "a", "a_norm", "pool", "b", "flat", "top",
    ]  # fmt: skip
    assert points["b"].layers == 2 / 3
    both = MACS_A + MACS_B
    assert points["b"].macs == both / (both + 128 * 3)


def test_a_network_without_multiplications_has_shares_of_0():
    network = keras.Sequential([keras.Input((4,)), layers.ReLU(name="a")])
    points = cut_points(network)
    assert [(p.layers, p.parameters, p.macs) for p in points] == [(0, 0, 0)] * 2


class Projection(layers.Layer):
    """A layer of the user that multiplies by a matrix of its own."""

    def build(self, input_shape):
        self.matrix = self.add_weight(shape=(input_shape[-1], 3))

    def call(self, x):
        return keras.ops.matmul(x, self.matrix)


def test_macs_of_the_users_layers_are_counted():
    network = convolutions([layers.Flatten(), Projection(name="own")])
    features = network.layers[-2].output.shape[-1]
    points = cut_points(network)
    whole = MACS_A + MACS_B + 3 * features
    assert points[1].macs == MACS_A / whole
    assert (points[-1].name, points[-1].macs) == ("own", 1.0)


def test_what_is_no_backbone_is_refused():
    with pytest.raises(TypeError, match=r"not a keras\.Model"):
        cut_points("resnet32")
    x = keras.Input((4,))
    with pytest.raises(ValueError, match="2 outputs"):
        cut_points(keras.Model(x, [layers.ReLU()(x), layers.ReLU()(x)]))


@pytest.mark.slow
def test_points_of_a_keras_application_go_from_nothing_to_all():
    network = keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.35
    )
    points = cut_points(network)
    for values in (
        [point.layers for point in points],
        [point.parameters for point in points],
        [point.macs for point in points],
    ):
        assert values == sorted(values)
        assert (values[0], values[-1]) == (0, 1)
    assert len({point.name for point in points}) == len(points)
