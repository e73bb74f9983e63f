"""The operations of layers, counted by hand or by slow loops."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

from keras_incremental import backbones
from keras_incremental.graphs.graph import Graph
from keras_incremental.graphs.operations import (
    count_network,
    count_node,
    elements,
)
from keras_incremental.layers import ExpandableDense


def network_of(layer, shape):
    image = keras.Input(shape)
    return keras.Model(image, layer(image))


def macs_of(layer, shape, macs=None):
    """The multiply-accumulates of one layer on an input of this shape."""
    return count_network(network_of(layer, shape), macs)[-1].macs


def total_macs(network):
    return sum(node.macs for node in count_network(network))


class Doubling(layers.Layer):
    """A layer that no rule knows."""

    def call(self, x):
        return 2 * x


class Halving(layers.Layer):
    """Another one."""

    def call(self, x):
        return x / 2


@pytest.mark.parametrize(
    ("layer", "shape", "by_hand"),
    [
        # Output 6x6 of 16 channels, each of 3x3x4 products.
        (layers.Conv2D(16, 3), (8, 8, 4), 6 * 6 * 16 * 3 * 3 * 4),
        (layers.Conv2D(16, 3, strides=2, padding="same"), (8, 8, 4),
         4 * 4 * 16 * 3 * 3 * 4),
        (layers.Conv2D(16, 3, dilation_rate=2), (8, 8, 4),
         4 * 4 * 16 * 3 * 3 * 4),
        (layers.Conv2D(16, (1, 5), groups=4), (8, 8, 4), 8 * 4 * 16 * 5),
        (layers.Conv1D(6, 3), (10, 2), 8 * 6 * 3 * 2),
        (layers.Conv3D(2, 2), (3, 3, 3, 1), 8 * 2 * 8),
        (layers.Conv2DTranspose(5, 3, strides=2), (4, 4, 2), 16 * 2 * 9 * 5),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 4),
         6 * 6 * 8 * 9),
        (layers.SeparableConv2D(16, 3, depth_multiplier=2), (8, 8, 4),
         6 * 6 * (8 * 9 + 8 * 16)),
        (layers.Dense(10), (8,), 80),
        (layers.Dense(10), (5, 4, 8), 5 * 4 * 8 * 10),
        (layers.EinsumDense("abc,cd->abd", (5, 7)), (5, 3), 5 * 3 * 7),
        (layers.EinsumDense("...x,xy->...y", 7), (5, 3), 5 * 3 * 7),
        (layers.EinsumDense("abc,bcd->abd", (4, 6)), (4, 3), 4 * 3 * 6),
        (layers.EinsumDense("abc,cde->abde", (5, 4, 2)), (5, 3), 5 * 24),
    ],
)  # fmt: skip
def test_macs_of_a_layer_are_those_counted_by_hand(layer, shape, by_hand):
    assert macs_of(layer, shape) == by_hand


def test_a_strided_transposed_convolution_counts_each_product_once():
    """A loop over input pixels, kernel and filters multiplies as often."""
    products = 0
    for _ in itertools.product(range(3), range(2), range(9), range(2)):
        products += 4  # input channels
    layer = layers.Conv2DTranspose(2, 3, strides=2)
    assert macs_of(layer, (3, 2, 4)) == products


def test_self_attention_counts_projections_and_both_products():
    attention = layers.MultiHeadAttention(num_heads=2, key_dim=3, value_dim=5)
    tokens = keras.Input((7, 8))
    network = keras.Model(tokens, attention(tokens, tokens))
    projections = 7 * 8 * (2 * 3 + 2 * 3 + 2 * 5) + 7 * 2 * 5 * 8
    products = 2 * 7 * 7 * (3 + 5)
    (_, node) = count_network(network)
    assert node.macs == projections + products
    assert node.parameters == attention.count_params()


def test_cross_attention_is_not_known():
    queries = keras.Input((7, 8))
    fewer = layers.AveragePooling1D(7)(queries)
    attention = layers.MultiHeadAttention(1, 4, name="cross")
    network = keras.Model(queries, attention(queries, fewer))
    with pytest.raises(ValueError, match="'cross' \\(MultiHeadAttention\\)"):
        count_network(network)


def test_an_axis_that_is_summed_without_the_kernel_is_not_known():
    layer = layers.EinsumDense("abc,cd->ad", (7,), name="summed")
    with pytest.raises(ValueError, match="'summed'"):
        macs_of(layer, (5, 3))


def test_channels_first_counts_as_channels_last():
    first = layers.Conv2D(16, 3, data_format="channels_first")
    assert macs_of(first, (4, 8, 9)) == 6 * 7 * 16 * 3 * 3 * 4


@pytest.mark.parametrize(
    "layer",
    [
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Activation("gelu"),
        layers.MaxPooling2D(),
        layers.GlobalAveragePooling2D(),
        layers.ZeroPadding2D(),
        layers.Rescaling(2.0),
        layers.Dropout(0.5),
        layers.Identity(),
        layers.Flatten(),
        layers.Resizing(2, 2),
        layers.Normalization(mean=0.0, variance=1.0),
        backbones.cifar_resnet.ZeroPadShortcut(8),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_published_figures_leave_out_count_0(layer):
    assert macs_of(layer, (4, 4, 2)) == 0


def test_elementwise_operations_of_keras_count_0():
    x = keras.Input((4, 4, 2))
    y = keras.ops.mean(keras.ops.relu(x) * 2 + x, axis=(1, 2))
    nodes = count_network(keras.Model(x, y))
    assert [(node.macs, node.parameters) for node in nodes] == [(0, 0)] * 5


def test_a_matrix_product_is_not_taken_for_an_elementwise_operation():
    x = keras.Input((4, 4))
    with pytest.raises(ValueError, match=r"'matmul\w*' \(Matmul\)"):
        count_network(keras.Model(x, keras.ops.matmul(x, x)))


def test_a_head_counts_its_units_in_use_and_not_those_reserved():
    head = ExpandableDense((3, 2), capacity=64)
    node = count_network(network_of(head, (8,)))[1]
    assert node.macs == 8 * 5
    assert node.parameters == node.trainable_parameters == 8 * 5 + 5
    assert node.output_elements == 5


@pytest.mark.parametrize(
    ("build", "low", "high"),
    [
        pytest.param(
            lambda: backbones.resnet18((224, 224, 3)),
            1.81e9, 1.82e9, marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda: backbones.resnet32((32, 32, 3)),
            68.8e6, 68.9e6, marks=pytest.mark.slow,
        ),
        (lambda: backbones.resnet20((32, 32, 3)), 40.5e6, 40.6e6),
        (lambda: keras.applications.MobileNetV2(weights=None), 299e6, 302e6),
        pytest.param(
            lambda: keras.applications.EfficientNetB0(weights=None),
            380e6, 390e6, marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda: keras.applications.DenseNet121(weights=None),
            2.8e9, 2.9e9, marks=pytest.mark.slow,
        ),
    ],
    ids=[
        "resnet18", "resnet32", "resnet20", "mobilenet_v2", "efficientnet_b0",
        "densenet121",
    ],
)  # fmt: skip
def test_macs_are_the_published_ones(build, low, high):
    assert low < total_macs(build()) < high


def test_vgg16_takes_15_5_billion_macs():
    """Built of the same layers; its own dense ones hold 500 MB of weights."""
    image = x = keras.Input((224, 224, 3))
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            x = layers.Conv2D(width, 3, padding="same")(x)
        x = layers.MaxPooling2D()(x)
    dense = 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000
    assert 15.4e9 < total_macs(keras.Model(image, x)) + dense < 15.5e9


def test_parameters_are_those_of_keras_frozen_or_not():
    network = backbones.small()
    trainable = sum(
        int(np.prod(weight.shape)) for weight in network.trainable_weights
    )
    for network.trainable in (True, False):
        nodes = count_network(network)
        stored = sum(node.parameters for node in nodes)
        assert stored == network.count_params()
        assert sum(node.trainable_parameters for node in nodes) == trainable
    assert not network.trainable_weights


def test_nested_models_are_opened():
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten()]
    )
    outer = keras.Sequential([keras.Input((8, 8, 3)), inner, layers.Dense(5)])
    macs = {node.name: node.macs for node in count_network(outer)}
    assert inner.name not in macs
    assert sum(macs.values()) == 6 * 6 * 4 * 9 * 3 + 6 * 6 * 4 * 5


def test_a_layer_called_twice_works_twice_and_is_stored_once():
    dense, x = layers.Dense(4), keras.Input((4,))
    _, first, second = count_network(keras.Model(x, dense(dense(x))))
    assert first.macs == second.macs == 16
    assert (first.is_repeat, second.is_repeat) == (False, True)


def test_activations_are_the_values_of_all_inputs_and_of_the_output():
    x = keras.Input((4, 4, 2))
    y = layers.Conv2D(3, 1, name="conv")(x)
    both = layers.Concatenate()([x, y])
    nodes = count_network(keras.Model(x, layers.Flatten()(both)))
    found = [(node.input_elements, node.output_elements) for node in nodes]
    assert found == [((), 32), ((32,), 48), ((32, 48), 80), ((80,), 80)]
    assert [node.is_view for node in nodes] == [True, False, False, True]
    assert nodes[2].inputs == (0, 1)


def test_all_outputs_of_an_operation_count():
    x = keras.Input((6,))
    low, high = keras.ops.split(x, [2], axis=-1)
    nodes = count_network(keras.Model(x, layers.Concatenate()([low, high])))
    assert nodes[1].output_elements == 6


def test_unknown_layers_are_all_named_with_their_class_and_the_way_out():
    x = keras.Input((4,))
    y = Halving(name="second")(layers.ReLU()(Doubling(name="first")(x)))
    network = keras.Model(x, y, name="mine")
    with pytest.raises(ValueError) as caught:
        count_network(network)
    message = str(caught.value)
    assert "'mine'" in message
    assert "'first' (Doubling), 'second' (Halving)" in message
    assert "macs={Doubling: function}" in message


def test_given_functions_count_by_class_or_by_name_before_the_rules():
    def count(layer, input_shapes, output_shape):
        assert layer.name in ("first", "dense")
        return 100 * input_shapes[0][-1] + output_shape[-1]

    x = keras.Input((4,))
    y = layers.Dense(3, name="dense")(Doubling(name="first")(x))
    given = {Doubling: count, "dense": count}
    nodes = count_network(keras.Model(x, y), given)
    assert [node.macs for node in nodes] == [0, 404, 403]


def test_a_subclass_counts_as_its_nearest_parent():
    class MyConv(layers.Conv2D):
        pass

    class MyDoubling(Doubling):
        pass

    assert macs_of(MyConv(2, 3), (3, 3, 1)) == 18
    assert macs_of(MyConv(2, 3), (3, 3, 1), {MyConv: lambda *_: 7}) == 7
    assert macs_of(MyDoubling(), (4,), {Doubling: lambda *_: 5}) == 5
    # A rule for all layers does not hide those for some.
    every = {layers.Layer: lambda *_: 9}
    assert macs_of(MyConv(2, 3), (3, 3, 1), every) == 18
    assert macs_of(Doubling(), (4,), every) == 9


def test_a_class_of_the_user_is_not_taken_for_one_of_keras_by_its_name():
    class Flip(layers.Layer):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"\(Flip\)"):
        macs_of(Flip(), (4,))


@pytest.mark.parametrize("result", [-1, 2.5, "many"])
def test_a_count_that_is_none_is_an_error(result):
    with pytest.raises(ValueError, match=r"'named' .*expected an int"):
        macs_of(Doubling(name="named"), (4,), {Doubling: lambda *_: result})


@pytest.mark.parametrize("macs", [[Doubling], {Doubling: 5}, {3: len}])
def test_macs_of_another_type_are_an_error(macs):
    with pytest.raises(TypeError, match="expected a dict from a layer class"):
        macs_of(layers.ReLU(), (4,), macs)


def test_open_image_size_is_an_error_that_says_what_to_do():
    network = backbones.small((None, None, 3))
    with pytest.raises(ValueError, match=r"Give keras\.Input a complete shape"):
        count_network(network)


def test_one_node_counts_as_in_its_network():
    network = backbones.small((8, 8, 1))
    nodes = Graph(network).nodes
    assert tuple(map(count_node, nodes)) == count_network(network)


def test_elements_leave_out_the_batch():
    assert elements((None, 3, 2)) == 6
    assert elements((None,)) == 1
