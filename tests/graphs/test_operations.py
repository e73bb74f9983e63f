"""The operations of layers, counted by hand or by slow loops."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

from keras_incremental import backbones
from keras_incremental.graphs.operations import count_network, elements


def network_of(layer, shape):
    image = keras.Input(shape)
    return keras.Model(image, layer(image))


def macs_of(layer, shape):
    """The multiply-accumulates of one layer on an input of this shape."""
    return count_network(network_of(layer, shape))[-1].macs


def total_macs(network):
    return sum(node.macs for node in count_network(network))


class Projection(layers.Layer):
    """A layer of the user that multiplies by a matrix of its own."""

    def build(self, input_shape):
        self.matrix = self.add_weight(shape=(5, input_shape[-1]))

    def call(self, x):
        return 2 * keras.ops.matmul(x, keras.ops.transpose(self.matrix))


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
        (layers.Conv3DTranspose(2, 2), (3, 3, 3, 1), 27 * 8 * 2),
        (Projection(), (4, 3), 4 * 3 * 5),
        (layers.EinsumDense("abc,cd->abd", (5, 7)), (5, 3), 5 * 3 * 7),
        # TensorFlow sums the other axis behind the product.
        (layers.EinsumDense("abc,cd->ad", 7), (5, 3), 5 * 3 * 7),
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


def test_cross_attention_counts_the_keys_that_it_looks_at():
    queries = keras.Input((6, 8))
    fewer = layers.AveragePooling1D(2)(queries)
    attention = layers.MultiHeadAttention(1, 4)
    network = keras.Model(queries, attention(queries, fewer))
    projections = 6 * 8 * 4 + 2 * 3 * 8 * 4 + 6 * 4 * 8
    assert count_network(network)[-1].macs == projections + 2 * 6 * 3 * 4


@pytest.mark.parametrize(
    ("equation", "products"),
    [("bij,bjk->bik", 4 * 5 * 4), ("...ij,...kj->...ik", 4 * 4 * 5)],
)
def test_einsum_counts_the_axes_that_it_sums(equation, products):
    x = keras.Input((4, 5))
    other = layers.Permute((2, 1))(x) if "jk" in equation else x
    network = keras.Model(x, keras.ops.einsum(equation, x, other))
    assert count_network(network)[-1].macs == products


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
    x = keras.Input((4, 6))
    product = keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))
    assert total_macs(keras.Model(x, product)) == 4 * 4 * 6


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
        (lambda: keras.applications.MobileNet(weights=None), 568e6, 570e6),
        pytest.param(
            lambda: keras.applications.MobileNetV2(weights=None),
            299e6, 302e6, marks=pytest.mark.slow,
        ),
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
        "resnet18", "resnet32", "resnet20", "mobilenet", "mobilenet_v2",
        "efficientnet_b0", "densenet121",
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


def test_a_layer_that_runs_a_loop_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="'recurrent' runs a loop"):
        macs_of(layers.SimpleRNN(4, name="recurrent"), (7, 3))


def test_open_image_size_is_an_error_that_says_what_to_do():
    network = backbones.small((None, None, 3))
    with pytest.raises(ValueError, match=r"Give keras\.Input a complete shape"):
        count_network(network)


def test_elements_leave_out_the_batch():
    assert elements((None, 3, 2)) == 6
    assert elements((None,)) == 1
