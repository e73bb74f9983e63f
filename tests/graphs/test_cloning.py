"""Thin clones against kernels chosen by hand, and against the full network."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from keras_incremental import backbones
from keras_incremental.graphs.cloning import clone_network
from keras_incremental.graphs.graph import Graph


@keras.saving.register_keras_serializable(package="test_thinning")
class Shift(layers.Layer):
    """A layer that thinning does not know, with a weight and an argument."""

    def __init__(self, by=1.0, **kwargs):
        super().__init__(**kwargs)
        self.by = by

    def build(self, input_shape):
        self.offset = self.add_weight(shape=input_shape[-1:], name="offset")

    def call(self, x):
        return x + self.offset + self.by

    def get_config(self):
        return {**super().get_config(), "by": self.by}


class Apply(keras.Operation):
    """An operation without a config: a function cannot be written down."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


@keras.saving.register_keras_serializable(package="test_thinning")
def centred(x):
    """An activation that mixes channels."""
    return x - keras.ops.mean(x, -1, keepdims=True)


class OwnDense(layers.Dense):
    """A subclass, which might do anything with its units."""


def model(shape, *stack, name="net"):
    """A Functional chain of layers."""
    inputs = x = keras.Input(shape)
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x, name=name)


def randomize(network, seed=0):
    """Gives every weight, statistics included, values of its own."""
    random = np.random.default_rng(seed)
    for weight in network.weights:
        value = random.normal(size=weight.shape)
        if weight.name == "moving_variance":
            value = 0.5 + np.abs(value)
        weight.assign(value)
    return network


def batch(network, seed=1):
    shape = (3, *(8 if n is None else n for n in network.input_shape[1:]))
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def channels(network):
    """Dict from the name of a layer to its filters or units."""
    sizes = {}
    for layer in network.layers:
        size = getattr(layer, "filters", getattr(layer, "units", None))
        if size is not None:
            sizes[layer.name] = size
    return sizes


def silence(network, name, followers, width, seed=0):
    """Zeroes random channels of a layer, so that `width` of them are left.

    Kernel and bias of the layer are zeroed, and what its followers add to
    each channel: bias, beta and moving mean. Returns the channels left.
    """
    random = np.random.default_rng(seed)
    layer = network.get_layer(name)
    size = layer.weights[-1].shape[-1]
    left = np.sort(random.permutation(size)[: round(width * size)])
    dropped = np.setdiff1d(np.arange(size), left)
    for part in (layer, *map(network.get_layer, followers)):
        for weight in part.weights:
            of_layer = part is layer and weight.name.endswith("kernel")
            adds = weight.name in ("bias", "beta", "moving_mean")
            if weight.name == "depthwise_kernel" or not (of_layer or adds):
                continue
            value = weight.numpy()
            value[..., dropped] = 0
            weight.assign(value)
    return left


def same_weights(clone, network):
    """Whether all weights are equal, by layer and name, bit for bit."""
    for old in network.layers:
        if isinstance(old, layers.InputLayer):
            continue
        new = clone.get_layer(old.name)
        assert [w.name for w in new.weights] == [w.name for w in old.weights]
        for a, b in zip(new.weights, old.weights, strict=True):
            assert a is not b
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    return len(clone.weights) == len(network.weights)


# By hand.


def test_the_kernels_of_the_largest_norm_stay_in_their_order():
    network = model(
        (1, 1, 2),
        layers.Conv2D(4, 1, name="first"),
        layers.ReLU(),
        layers.Conv2D(3, 1, use_bias=False, name="second"),
        layers.GlobalAveragePooling2D(),
    )
    # L2 norms 5, 1, sqrt(32), 0; by the sum of absolutes, 7 and 8, as well.
    first = np.array([[[[3.0, 1.0, 4.0, 0.0], [-4.0, 0.0, 4.0, 0.0]]]])
    bias = np.array([10.0, 20.0, 30.0, 40.0])
    # Norms 2, 9, 3: the whole kernel counts, of channels 1 and 3 as well.
    second = np.array(
        [[[[1.0, 0.0, 3.0], [0.0, 9.0, 0.0], [-1.0, 0.0, 0.0], [1.0, 0, 0]]]]
    )
    second[0, 0, 3, 0] = np.sqrt(2)
    network.set_weights([first, bias, second])
    # round(0.6 * 4) = 2, round(0.6 * 3) = 2.
    kernel, kept_bias, last = clone_network(network, 0.6).get_weights()
    np.testing.assert_array_equal(kernel[0, 0], [[3, 4], [-4, 4]])
    np.testing.assert_array_equal(kept_bias, [10, 30])
    np.testing.assert_array_equal(last[0, 0], [[0, 3], [0, 0]])


def test_the_norm_is_of_squares_not_of_absolutes():
    network = model((2,), layers.Dense(2))
    # Sums of absolutes 4 and 5, of squares 16 and 12.5.
    network.set_weights([np.array([[4, 2.5], [0, 2.5]]), np.zeros(2)])
    np.testing.assert_array_equal(
        clone_network(network, 0.5).get_weights()[0], [[4], [0]]
    )


def test_of_equal_norms_the_first_are_kept():
    network = model((1,), layers.Dense(6, name="features"))
    network.set_weights([np.ones((1, 6)), np.arange(6.0)])
    np.testing.assert_array_equal(
        clone_network(network, 0.5).get_layer("features").bias, [0, 1, 2]
    )


def test_conv_chain_equals_selection_in_numpy():
    network = randomize(
        model(
            (6, 6, 3),
            layers.Conv2D(8, 3, name="a"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(),
            layers.Conv2D(5, 3, name="b"),
            layers.Flatten(),
            layers.Dense(7, name="c"),
        )
    )
    a, bn, b, c = (
        network.get_layer(name).get_weights() for name in ("a", "bn", "b", "c")
    )
    keep_a, keep_b, keep_c = (
        strongest(weights[0], 0.5) for weights in (a, b, c)
    )
    assert (len(keep_a), len(keep_b), len(keep_c)) == (4, 2, 4)  # 2.5, 3.5
    rows = [5 * pixel + channel for pixel in range(4) for channel in keep_b]
    expected = [
        a[0][:, :, :, keep_a],
        a[1][keep_a],
        *(weight[keep_a] for weight in bn),
        b[0][:, :, keep_a][:, :, :, keep_b],
        b[1][keep_b],
        c[0][rows][:, keep_c],
        c[1][keep_c],
    ]
    found = [
        weight
        for name in ("a", "bn", "b", "c")
        for weight in clone_network(network, 0.5).get_layer(name).get_weights()
    ]
    for weight, by_hand in zip(found, expected, strict=True):
        np.testing.assert_array_equal(weight, by_hand)


def strongest(kernel, width):
    """Slow: one channel's sum of squares after the other."""
    size = kernel.shape[-1]
    kernel = kernel.astype("float64")
    squares = [np.sum(kernel[..., c] ** 2) for c in range(size)]
    ranked = sorted(range(size), key=lambda c: squares[c], reverse=True)
    return sorted(ranked[: round(width * size)])


@pytest.fixture(scope="module")
def dense_chain():
    return randomize(
        model((5,), layers.Dense(9, name="a"), layers.Dense(16, name="b"))
    )


@settings(max_examples=25, deadline=None)
@given(width=st.floats(0.06, 1))
def test_any_width_keeps_the_rounded_share_of_the_strongest(dense_chain, width):
    a, b = (dense_chain.get_layer(name).get_weights() for name in "ab")
    keep_a, keep_b = strongest(a[0], width), strongest(b[0], width)
    clone = clone_network(dense_chain, width)
    assert channels(clone) == {"a": round(width * 9), "b": round(width * 16)}
    expected = [a[0][:, keep_a], a[1][keep_a]]
    expected += [b[0][keep_a][:, keep_b], b[1][keep_b]]
    for weight, by_hand in zip(clone.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(weight, by_hand)


# Channels that are zero can go.


def channelwise_layers():
    return {
        "activation": [layers.Activation("relu")],
        "own_activation": [layers.Activation(keras.ops.relu)],
        "average_pooling": [layers.AveragePooling2D(2)],
        "batch_normalization": [layers.BatchNormalization(axis=3, name="bn")],
        "cropping": [layers.Cropping2D(1)],
        "depthwise": [
            layers.DepthwiseConv2D(3, activation="relu", name="depthwise")
        ],
        "dropout": [layers.Dropout(0.5)],
        "elu": [layers.ELU()],
        "flatten": [layers.Flatten()],
        "global_average": [layers.GlobalAveragePooling2D(keepdims=True)],
        "global_max": [layers.GlobalMaxPooling2D()],
        "identity": [layers.Identity()],
        "leaky_relu": [layers.LeakyReLU()],
        "max_pooling": [layers.MaxPooling2D(2)],
        "relu": [layers.ReLU(6.0, negative_slope=0.1)],
        "spatial_dropout": [layers.SpatialDropout2D(0.5)],
        "upsampling": [layers.UpSampling2D()],
        "zero_padding": [layers.ZeroPadding2D(1)],
        "flat_normalization": [
            layers.Flatten(),
            layers.BatchNormalization(),
            layers.ReLU(),
        ],
    }


@pytest.mark.parametrize("case", channelwise_layers())
def test_zero_channels_go_through_channelwise_layers(case):
    between = channelwise_layers()[case]
    network = randomize(
        model(
            (8, 8, 3),
            layers.Conv2D(10, 3, name="first"),
            *between,
            layers.Dense(4, name="second"),
            Shift(name="kept_whole"),
        )
    )
    named = [x.name for x in between if x.name in ("bn", "depthwise")]
    silence(network, "first", named, 0.3)
    if case == "flat_normalization":
        silence_flat(network, between[1])
    clone = clone_network(network, 0.3)
    assert channels(clone) == {"first": 3, "second": 4}
    assert [x.name for x in clone.layers[1:]] == [
        x.name for x in network.layers[1:]
    ]
    images = batch(network)
    expected = network(images).numpy()
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(clone(images), expected, rtol=1e-4, atol=1e-4)


def silence_flat(network, norm):
    """Lets the pixels of zero channels come out of `norm` as zeros."""
    dead = np.all(network.get_layer("first").kernel.numpy() == 0, (0, 1, 2))
    for weight in (norm.beta, norm.moving_mean):
        pixels = weight.numpy().reshape(-1, len(dead))
        pixels[:, dead] = 0
        weight.assign(pixels.ravel())


def mixing_layers():
    return {
        "conv": layers.Conv2D(4, 3, strides=2, padding="same"),
        "conv_dilated": layers.Conv2D(4, 3, dilation_rate=2),
        "conv_softmax": layers.Conv2D(4, 1, activation="softmax"),
        "dense": layers.Dense(4, use_bias=False),
    }


@pytest.mark.parametrize("first", ["conv", "dense"])
@pytest.mark.parametrize("second", mixing_layers())
def test_zero_channels_go_between_mixing_layers(first, second):
    first, second = mixing_layers()[first], mixing_layers()[second]
    first = type(first).from_config({**first.get_config(), "name": "first"})
    network = randomize(
        model(
            (9, 9, 3),
            first,
            layers.BatchNormalization(scale=False, name="bn"),
            layers.ReLU(),
            second,
            Shift(),
        )
    )
    silence(network, "first", ["bn"], 0.5)
    clone = clone_network(network, 0.5)
    assert list(channels(clone).values()) == [2, 4]
    images = batch(network)
    expected = network(images).numpy()
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(clone(images), expected, rtol=1e-4, atol=1e-4)


def test_features_that_stay_are_those_of_the_full_network():
    network = randomize(
        model(
            (8, 8, 3),
            layers.Conv2D(6, 3, name="first"),
            layers.ReLU(),
            layers.Conv2D(12, 3, name="last"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
        )
    )
    silence(network, "first", [], 0.5)
    left = silence(network, "last", ["bn"], 0.75)
    clone = clone_network(network, 0.75)
    assert channels(clone) == {"first": 4, "last": 9}
    images = batch(network)
    full = network(images).numpy()
    assert np.all(np.delete(full, left, axis=1) == 0)
    np.testing.assert_allclose(clone(images), full[:, left], rtol=1e-4)


def test_flatten_as_the_last_layer_drops_the_channels_of_every_pixel():
    network = randomize(
        model((2, 2, 1), layers.Conv2D(4, 1, name="c"), layers.Flatten())
    )
    left = silence(network, "c", [], 0.5)
    images = batch(network)
    full = network(images).numpy().reshape(3, 4, 4)
    np.testing.assert_allclose(
        clone_network(network, 0.5)(images),
        full[:, :, left].reshape(3, 8),
        rtol=1e-5,
    )


# Networks of the field.


@pytest.fixture(scope="module")
def resnet_tail():
    """Stage 3 of ResNet-32, its images of 16 x 16 pixels, its weights random.

    It shares its layers with the network, as a branch's first copy does.
    """
    graph = Graph(backbones.resnet32())
    cut = graph.nodes[graph.index("stage2")].output
    return randomize(keras.Model(cut, graph.output))


@pytest.mark.slow
def test_of_resnet32_the_inner_convolutions_are_halved(resnet_tail):
    clone = clone_network(resnet_tail, 0.5)
    assert channels(clone) == {
        "stage3_block1_shortcut": 64,
        **{f"stage3_block{block}_conv1": 32 for block in range(1, 6)},
        **{f"stage3_block{block}_conv2": 64 for block in range(1, 6)},
    }
    assert clone.input_shape == resnet_tail.input_shape == (None, 16, 16, 32)
    assert clone.output_shape == resnet_tail.output_shape == (None, 64)
    # 5 blocks of two 3x3 convolutions each lose half of their weights.
    kernels = 9 * (32 * 64 + 9 * 64 * 64)
    norms = 4 * 5 * 64
    assert resnet_tail.count_params() == kernels + 2 * norms
    assert clone.count_params() == kernels / 2 + 1.5 * norms


def test_resnet32_without_its_zero_channels_computes_the_same(resnet_tail):
    network = clone_network(resnet_tail, 1)
    for block in range(1, 6):
        name = f"stage3_block{block}"
        silence(network, f"{name}_conv1", [f"{name}_bn1"], 0.5, seed=block)
        network.get_layer(f"{name}_bn2").gamma.assign(np.full(64, 0.01))
    images = batch(network)
    expected = network(images).numpy()
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(
        clone_network(network, 0.5)(images), expected, rtol=1e-3, atol=1e-4
    )


@pytest.fixture(scope="module")
def mobilenet_tail():
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, include_top=False, weights=None, pooling="avg"
    )
    cut = network.get_layer("block_12_add").output
    return keras.Model(cut, network.output)


@pytest.mark.slow
def test_mobilenet_v2_is_thinned_between_its_sums(mobilenet_tail):
    full, half = (
        channels(mobilenet_tail),
        channels(clone_network(mobilenet_tail, 0.5)),
    )
    # The sums of blocks 14 and 15 hold the outputs of blocks 13 to 15.
    held = {f"block_{block}_project" for block in (13, 14, 15)}
    assert half == {
        name: size if name in held else size // 2 for name, size in full.items()
    }
    assert half["Conv_1"] == 640


def test_mobilenet_v2_without_its_zero_channels_computes_the_same(
    mobilenet_tail,
):
    network = clone_network(mobilenet_tail, 1)
    normalize(network)
    for block in range(13, 17):
        name = f"block_{block}"
        after = ["expand_BN", "depthwise_BN"]
        after = [f"{name}_{norm}" for norm in after]
        silence(network, f"{name}_expand", after, 0.5, seed=block)
    silence(network, "block_16_project", ["block_16_project_BN"], 0.5)
    left = silence(network, "Conv_1", ["Conv_1_bn"], 0.5)
    images = batch(network)
    expected = network(images).numpy()[:, left]
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(
        clone_network(network, 0.5)(images), expected, rtol=1e-3, atol=1e-4
    )


def normalize(network):
    """Sets the moving statistics to those of one batch."""
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    network(batch(network), training=True)


# What is kept whole.


def kept_whole():
    """Networks in which `first` must stay, though `other` may be thinned."""
    shared = layers.Dense(4, name="shared")
    twice = layers.ReLU(name="twice")
    return {
        "add": lambda x, y: layers.Add()([x, y]),
        "concatenate": lambda x, y: layers.Concatenate()([x, y]),
        "multiply_behind_relu": lambda x, y: layers.Multiply()(
            [layers.ReLU()(x), y]
        ),
        "custom_layer": lambda x, y: Shift()(x),
        "subclass": lambda x, y: OwnDense(4)(x),
        "layer_normalization": lambda x, y: layers.LayerNormalization()(x),
        "softmax_layer": lambda x, y: layers.Activation("softmax")(x),
        "log_softmax": lambda x, y: layers.Activation("log_softmax")(x),
        "sparsemax": lambda x, y: layers.Activation("sparsemax")(x),
        "gated": lambda x, y: layers.Activation("glu")(x),
        "own_callable": lambda x, y: layers.Activation(centred)(x),
        "operation": lambda x, y: x * 2.0,
        "reshape": lambda x, y: layers.Reshape((-1, 2))(x),
        "grouped": lambda x, y: layers.Conv2D(4, 1, groups=2)(x),
        "depthwise_2": lambda x, y: layers.DepthwiseConv2D(
            3, depth_multiplier=2
        )(x),
        "depthwise_softmax": lambda x, y: layers.DepthwiseConv2D(
            3, activation="softmax"
        )(x),
        "normalized_axis_1": lambda x, y: layers.BatchNormalization(axis=1)(x),
        "rescaling": lambda x, y: layers.Rescaling([1, 2, 3, 4])(x),
        "separable": lambda x, y: layers.SeparableConv2D(4, 1)(x),
        "prelu": lambda x, y: layers.PReLU()(x),
        "noise_shape": lambda x, y: layers.Dropout(
            0.5, noise_shape=(None, 1, 1, 4)
        )(x),
        "channels_first": lambda x, y: layers.GlobalAveragePooling2D(
            data_format="channels_first"
        )(x),
        "layer_called_twice": lambda x, y: layers.Add()([shared(x), shared(y)]),
        "relu_called_twice": lambda x, y: layers.Dense(4)(twice(twice(x))),
        # One of two readers holds it.
        "one_of_two_readers": lambda x, y: layers.Add()(
            [layers.Dense(4)(x), layers.Add()([x, y])]
        ),
    }


@pytest.mark.parametrize("case", kept_whole())
def test_channels_that_something_holds_stay(case):
    inputs = keras.Input((8, 8, 3))
    other = layers.Dense(6, name="other")(inputs)
    y = layers.Conv2D(4, 3, name="y")(other)
    x = layers.Conv2D(4, 3, name="first")(inputs)
    x = kept_whole()[case](x, y)
    x = layers.Flatten()(x)
    y = layers.GlobalAveragePooling2D()(y)
    outputs = layers.Add()([layers.Dense(2)(x), layers.Dense(2)(y)])
    clone = clone_network(keras.Model(inputs, outputs), 0.5)
    assert channels(clone)["first"] == 4
    assert channels(clone)["other"] == 3
    assert clone.output_shape == (None, 2)


def test_a_softmax_inside_a_layer_holds_its_own_channels():
    network = model(
        (3,),
        layers.Dense(8, name="a"),
        layers.Dense(8, activation="softmax", name="b"),
        layers.Dense(8, name="c"),
    )
    assert channels(clone_network(network, 0.5)) == {"a": 4, "b": 8, "c": 4}


def test_flatten_of_a_size_that_is_not_known_holds_its_channels():
    network = model(
        (None, None, 3),
        layers.Dense(4, name="a"),
        layers.Dense(4, name="b"),
        layers.Flatten(),
    )
    assert channels(clone_network(network, 0.5)) == {"a": 2, "b": 4}


def test_a_layer_that_two_branches_read_is_thinned():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, name="fork")(inputs)
    left = layers.Conv2D(4, 3, name="left")(layers.ReLU()(x))
    right = layers.DepthwiseConv2D(3, name="depthwise")(x)
    right = layers.Conv2D(4, 1, name="right")(right)
    outputs = layers.Add()([left, right])
    network = randomize(keras.Model(inputs, outputs))
    silence(network, "fork", ["depthwise"], 0.25)
    clone = clone_network(network, 0.25)
    assert channels(clone) == {"fork": 2, "left": 4, "right": 4}
    images = batch(network)
    np.testing.assert_allclose(
        clone(images), network(images), rtol=1e-4, atol=1e-4
    )


def test_layers_with_adapters_are_not_thinned():
    network = model((4,), layers.Dense(8, name="a"), layers.Dense(8, name="b"))
    network.get_layer("b").enable_lora(2)
    randomize(network)
    clone = clone_network(network, 1)
    vectors = batch(network)
    np.testing.assert_array_equal(clone(vectors), network(vectors))
    with pytest.raises(ValueError, match="can be thinned"):
        clone_network(network, 0.5)


# width=1.


def nested():
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(6, 3, name="inner"),
            layers.BatchNormalization(name="inner_bn"),
        ],
        name="block",
    )
    inputs = keras.Input((8, 8, 3))
    x = inner(layers.Conv2D(4, 1, name="outer")(inputs))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, name="last")(x))


def with_operations():
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="dense")(inputs)
    outputs = keras.ops.concatenate([x * 2.0, keras.ops.relu(x)[:, 1:]], -1)
    outputs = Apply(lambda y: y + 1)(outputs)
    return keras.Model(inputs, outputs)


def adapted_normalization():
    norm = layers.Normalization()
    norm.adapt(np.arange(12.0).reshape(4, 3) ** 2)
    return model((3,), norm, layers.Dense(2))


def called_twice():
    shared = layers.Dense(4, name="shared")
    return model((4,), shared, layers.ReLU(), shared)


NETWORKS = {
    "adapted_normalization": adapted_normalization,
    "called_twice": called_twice,
    "custom_layer": lambda: randomize(model((3,), Shift(by=5.0))),
    "identity": lambda: model((3, 3, 1), layers.Identity(name="cut")),
    "operations": with_operations,
    "small": lambda: randomize(backbones.small()),
    "nothing": lambda: model((3,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_width_1_is_an_exact_clone(name):
    network = NETWORKS[name]()
    clone = clone_network(network, 1)
    assert same_weights(clone, network)
    assert clone.name == network.name
    assert clone.input_shape == network.input_shape
    assert clone.inputs[0].name == network.inputs[0].name
    assert {x.name for x in clone.layers[1:]} == {
        x.name for x in network.layers[1:]
    }
    images = batch(network)
    for training in (False, True):
        np.testing.assert_array_equal(
            clone_network(network, 1)(images, training=training),
            network(images, training=training),
        )


def test_width_1_of_the_tail_of_a_network_is_an_exact_clone(resnet_tail):
    clone = clone_network(resnet_tail, 1.0)
    assert same_weights(clone, resnet_tail)
    images = batch(resnet_tail)
    np.testing.assert_array_equal(clone(images), resnet_tail(images))


def test_width_1_of_mobilenet_v2_is_an_exact_clone(mobilenet_tail):
    clone = clone_network(mobilenet_tail, 1)
    assert same_weights(clone, mobilenet_tail)
    images = batch(mobilenet_tail)
    np.testing.assert_array_equal(clone(images), mobilenet_tail(images))


def test_a_width_that_rounds_to_all_channels_is_an_exact_clone(dense_chain):
    assert same_weights(clone_network(dense_chain, 0.99), dense_chain)


def test_a_sequential_network_is_cloned(tiny_backbone):
    clone = clone_network(tiny_backbone, 1)
    assert same_weights(clone, tiny_backbone)
    assert clone_network(tiny_backbone, 0.5).output_shape == (None, 8)


def test_nested_models_are_opened():
    network = randomize(nested())
    clone = clone_network(network, 1)
    images = batch(network)
    np.testing.assert_array_equal(clone(images), network(images))
    inner = clone.get_layer("inner").get_weights()
    for weight, expected in zip(
        inner, network.get_layer("block").layers[0].get_weights(), strict=True
    ):
        np.testing.assert_array_equal(weight, expected)
    assert channels(clone_network(network, 0.5)) == {
        "outer": 2,
        "inner": 3,
        "last": 2,
    }


# The clone and the network it comes from.


def test_the_network_does_not_change(dense_chain):
    before = dense_chain.get_weights()
    clone = clone_network(dense_chain, 0.5)
    for weight in clone.weights:
        weight.assign(np.zeros(weight.shape))
    assert channels(dense_chain) == {"a": 9, "b": 16}
    for weight, old in zip(dense_chain.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.parametrize("width", [0.5, 1])
def test_the_clone_of_a_frozen_network_is_trainable(tiny_backbone, width):
    count = len(tiny_backbone.trainable_weights)
    tiny_backbone.trainable = False
    clone = clone_network(tiny_backbone, width)
    assert clone.trainable
    assert all(layer.trainable for layer in clone.layers)
    assert len(clone.trainable_weights) == count == 3
    assert len(clone.non_trainable_weights) == 2
    assert not tiny_backbone.trainable_weights


def test_dtype_policies_are_kept():
    network = model(
        (4,),
        layers.Dense(4, dtype="mixed_bfloat16", name="mixed"),
        layers.Dense(4, dtype="bfloat16", name="short"),
        layers.Dense(4, dtype="float32", name="long"),
    )
    for width in (0.5, 1):
        clone = clone_network(network, width)
        policies = {x.name: x.dtype_policy.name for x in clone.layers[1:]}
        assert policies == {
            "mixed": "mixed_bfloat16",
            "short": "bfloat16",
            "long": "float32",
        }
        assert clone.get_layer("short").kernel.dtype == "bfloat16"


def test_the_clone_is_not_compiled_and_trains(tiny_backbone):
    tiny_backbone.compile("sgd", "mse")
    clone = clone_network(tiny_backbone, 0.5)
    assert not clone.compiled
    before = clone.get_weights()
    clone.compile(keras.optimizers.SGD(0.1), "mse")
    clone.fit(np.ones((4, 4, 4, 1)), np.ones((4, 8)), verbose=0)
    assert any(
        np.any(new != old)
        for new, old in zip(clone.get_weights(), before, strict=True)
    )


def test_the_clone_can_be_saved_and_thinned_again(dense_chain, tmp_path):
    clone = clone_network(clone_network(dense_chain, 0.5), 0.5)
    assert channels(clone) == {"a": 2, "b": 4}
    clone.save(tmp_path / "thin.keras")
    loaded = keras.models.load_model(tmp_path / "thin.keras")
    vectors = batch(clone)
    np.testing.assert_array_equal(loaded(vectors), clone(vectors))


# Errors.


def test_one_channel_is_left_at_least():
    network = model((2,), layers.Dense(80), layers.Dense(1), layers.Dense(7))
    sizes = channels(clone_network(network, 0.01)).values()
    assert list(sizes) == [1, 1, 1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: model((3,), layers.Identity()),
        lambda: model((3,), layers.Dense(3), Shift()),
        called_twice,
    ],
)
def test_a_network_of_which_nothing_can_be_thinned_is_refused(make):
    with pytest.raises(ValueError, match=r"width=0.9 .*'net' can be thinned"):
        clone_network(make(), 0.9)
