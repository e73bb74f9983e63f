"""Guarantees of the networks that come with the package."""

import inspect

import keras
import numpy as np
import pytest

from keras_incremental import backbones

BUILDERS = {
    "resnet20": (backbones.resnet20, (32, 32, 3), 64, 3),
    "resnet32": (backbones.resnet32, (32, 32, 3), 64, 3),
    "resnet56": (backbones.resnet56, (32, 32, 3), 64, 3),
    "resnet18": (backbones.resnet18, (64, 64, 3), 512, 4),
    "small": (backbones.small, (8, 8, 1), 64, 3),
}
# resnet56 differs from resnet20 in its number of blocks alone.
DISTINCT = ("resnet20", "resnet18", "small")


@pytest.fixture(scope="module")
def networks():
    """Each backbone, built once for all the tests that only read it."""
    keras.utils.set_random_seed(0)
    return {
        name: build(input_shape=shape)
        for name, (build, shape, _, _) in BUILDERS.items()
    }


@pytest.fixture
def dtype_policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def raw_images(shape, count=4):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8)


def trainable_count(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def convolution_macs(model):
    """Multiply-accumulates of one image: kernel size times output pixels."""
    return sum(
        int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:3]))
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    )


def cifar_convolutions(n):
    """Hand count of He et al. section 4.2, option A: (stem, stages 1 to 3)."""
    stem = 9 * 3 * 16
    stage1 = 2 * n * 9 * 16 * 16
    stage2 = 9 * 16 * 32 + (2 * n - 1) * 9 * 32 * 32
    stage3 = 9 * 32 * 64 + (2 * n - 1) * 9 * 64 * 64
    return stem, stage1, stage2, stage3


@pytest.mark.parametrize(
    ("name", "n", "expected"),
    [
        # The published 269722, 464154, 853018 less a classifier of 10 classes,
        # 64 * 10 + 10 = 650.
        ("resnet20", 3, 269_072),
        ("resnet32", 5, 463_504),
        ("resnet56", 9, 852_368),
    ],
)
def test_cifar_resnets_have_the_published_parameter_count(
    networks, name, n, expected
):
    batch_norm_channels = 16 * (2 * n + 1) + 32 * 2 * n + 64 * 2 * n
    by_hand = sum(cifar_convolutions(n)) + 2 * batch_norm_channels
    assert by_hand == expected
    assert trainable_count(networks[name]) == expected
    # Moving mean and variance of each normalised channel are not trained.
    assert networks[name].count_params() == expected + 2 * batch_norm_channels


def test_resnet32_takes_69_million_macs(networks):
    stem, stage1, stage2, stage3 = cifar_convolutions(5)
    by_hand = (stem + stage1) * 32**2 + stage2 * 16**2 + stage3 * 8**2
    assert by_hand == 68_861_952
    assert convolution_macs(networks["resnet32"]) == by_hand


def test_resnet18_has_the_published_parameter_count(networks):
    convolutions = (
        49 * 3 * 64
        + 4 * 9 * 64 * 64
        + 9 * (64 * 128 + 3 * 128 * 128) + 64 * 128
        + 9 * (128 * 256 + 3 * 256 * 256) + 128 * 256
        + 9 * (256 * 512 + 3 * 512 * 512) + 256 * 512
    )  # fmt: skip
    batch_norm_channels = 5 * 64 + 5 * 128 + 5 * 256 + 5 * 512
    # The published 11689512 less a classifier of 1000 classes, 513000.
    assert convolutions + 2 * batch_norm_channels == 11_176_512
    assert trainable_count(networks["resnet18"]) == 11_176_512


def test_resnet18_takes_1_8_billion_macs_on_224_pixels(networks):
    stem = 49 * 3 * 64 * 112**2
    stage1 = 4 * 9 * 64 * 64 * 56**2
    # Each later stage doubles both widths and halves both sides.
    later = (9 * (64 * 128 + 3 * 128 * 128) + 64 * 128) * 28**2
    assert stem + stage1 + 3 * later == 1_813_561_344
    build = inspect.signature(backbones.resnet18)
    assert build.parameters["input_shape"].default == (224, 224, 3)
    # All sides of 64 pixels are 3.5 times as long.
    assert convolution_macs(networks["resnet18"]) * 3.5**2 == 1_813_561_344


def test_small_has_56_thousand_parameters(networks):
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 64)
    assert convolutions + 2 * (32 + 64 + 64) == 55_904
    assert trainable_count(networks["small"]) == 55_904


@pytest.mark.parametrize("name", BUILDERS)
def test_output_is_one_feature_vector_an_image(networks, name):
    _, shape, dim, _ = BUILDERS[name]
    assert networks[name].input_shape == (None, *shape)
    assert networks[name].output_shape == (None, dim)


@pytest.mark.parametrize("name", BUILDERS)
def test_network_can_be_cut_at_every_stage(networks, name):
    """The layers after `stage{k}` see the image through it alone."""
    network, stages = networks[name], BUILDERS[name][3]
    names = [layer.name for layer in network.layers]
    for stage in range(1, stages + 1):
        cut = network.get_layer(f"stage{stage}")
        tail = keras.Model(cut.output, network.output)
        assert not {"image", "stem_conv"} & {x.name for x in tail.layers}
        assert f"stage{stage}_block1_conv1" in names
        assert f"stage{stage}_block1_out" in names
    assert f"stage{stages + 1}" not in names


def test_cut_network_computes_the_same_features(networks):
    network = networks["resnet20"]
    cut = network.get_layer("stage2").output
    images = raw_images((32, 32, 3))
    trunk = keras.Model(network.input, cut)
    tail = keras.Model(cut, network.output)
    # In two parts the same sums may be taken in another order.
    np.testing.assert_allclose(
        tail(trunk(images)), network(images), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", BUILDERS)
def test_stages_halve_the_size_as_in_the_paper(networks, name):
    _, (height, _, _), dim, stages = BUILDERS[name]
    sizes = {
        "resnet18": [height // 4, height // 8, height // 16, height // 32],
        "small": [8, 4, 4],
    }.get(name, [32, 16, 8])
    found = [
        networks[name].get_layer(f"stage{stage}").output.shape
        for stage in range(1, stages + 1)
    ]
    assert [shape[1:3] for shape in found] == [(size, size) for size in sizes]
    assert found[-1][-1] == dim


@pytest.mark.parametrize("name", DISTINCT)
def test_uint8_and_float_images_give_the_same_features(networks, name):
    images = raw_images(BUILDERS[name][1])
    np.testing.assert_array_equal(
        networks[name](images), networks[name](images.astype("float32"))
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20", [-1, 0, 1]),
        ("resnet18", [-1, 0, 1]),
        ("small", [0, 0.5, 1]),
    ],
)
def test_preprocessing_is_part_of_the_network(networks, name, expected):
    rescaling = networks[name].get_layer("rescaling")
    scaled = rescaling(np.array([[[[0.0, 127.5, 255.0]]]]))
    np.testing.assert_allclose(np.ravel(scaled), expected, rtol=0, atol=1e-6)
    assert networks[name].layers[1] is rescaling


@pytest.mark.parametrize(
    "name",
    [
        "resnet20",
        pytest.param("resnet18", marks=pytest.mark.slow),
        "small",
    ],
)
def test_saved_network_gives_equal_features(networks, name, tmp_path):
    path = tmp_path / "backbone.keras"
    networks[name].save(path)
    loaded = keras.models.load_model(path)
    for found, saved in zip(
        loaded.get_weights(), networks[name].get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, saved)
    images = raw_images(BUILDERS[name][1])
    # The loaded network is another one, which may round in another way.
    np.testing.assert_allclose(
        loaded(images), networks[name](images), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "dtype_policy"),
    [
        *((name, "mixed_float16") for name in DISTINCT),
        ("small", "mixed_bfloat16"),
    ],
    indirect=["dtype_policy"],
)
def test_mixed_precision_features_are_close_to_float32(
    networks, name, dtype_policy
):
    build, shape, dim, _ = BUILDERS[name]
    mixed = build(input_shape=shape)
    mixed.set_weights(networks[name].get_weights())
    images = raw_images(shape)
    features = mixed(images)
    assert features.dtype == dtype_policy.removeprefix("mixed_")
    assert mixed.get_layer("rescaling").compute_dtype == "float32"
    features = np.asarray(features, "float32")
    expected = np.asarray(networks[name](images))
    assert features.shape == (len(images), dim)
    assert np.abs(features - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.slow
def test_small_learns_to_tell_bright_from_dark_images():
    keras.utils.set_random_seed(0)
    network = backbones.small()
    model = keras.Sequential([network, keras.layers.Dense(2)])
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    labels = np.arange(64) % 2
    images = raw_images((8, 8, 1), 64) // 2 + 127 * labels.astype(
        "uint8"
    ).reshape(-1, 1, 1, 1)
    before = float(model.loss(labels, model(images)))
    history = model.fit(images, labels, batch_size=32, epochs=10, verbose=0)
    assert history.history["loss"][-1] < before / 10


def test_convolutions_have_no_bias_and_he_normal_kernels(networks):
    for name, network in networks.items():
        for layer in network.layers:
            if isinstance(layer, keras.layers.Conv2D):
                assert not layer.use_bias
                fan_in = np.prod(layer.kernel.shape[:3])
                kernel = keras.ops.convert_to_numpy(layer.kernel.value)
                spread = np.std(kernel) / np.sqrt(2 / fan_in)
                assert 0.8 < spread < 1.2, f"{name} {layer.name}"


def normalizations(network):
    return [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def test_normalisation_has_the_momentum_and_epsilon_of_the_paper(networks):
    for name, network in networks.items():
        assert normalizations(network), name
        for layer in normalizations(network):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5), name


def test_moving_statistics_go_a_tenth_of_the_way_to_those_of_a_batch():
    network, images = backbones.small(), raw_images((8, 8, 1))
    network(images, training=True)
    layer = network.get_layer("stage1_block1_bn1")
    convolution = network.get_layer("stage1_block1_conv1")
    inputs = np.asarray(keras.Model(network.input, convolution.output)(images))
    np.testing.assert_allclose(
        layer.moving_mean, 0.1 * inputs.mean((0, 1, 2)), atol=1e-5
    )
    np.testing.assert_allclose(
        layer.moving_variance, 0.9 + 0.1 * inputs.var((0, 1, 2)), atol=1e-5
    )


def test_images_of_any_size_are_taken_where_the_size_is_left_open():
    network = backbones.resnet20(input_shape=(None, None, 3))
    for size in (17, 32):
        assert network(raw_images((size, size, 3))).shape == (4, 64)


@pytest.mark.parametrize("build", [row[0] for row in BUILDERS.values()])
@pytest.mark.parametrize(
    "shape",
    [(32, 32), (1, 32, 32, 3), (32, 32, None), (0, 8, 3), (8.0, 8, 3), 32],
)
def test_shape_that_is_not_an_image_is_refused(build, shape):
    with pytest.raises(ValueError, match=r"without the batch axis"):
        build(input_shape=shape)


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="set_image_data_format"):
            backbones.small()
    finally:
        keras.config.set_image_data_format("channels_last")


def test_strided_convolution_is_centred_on_the_pixel_of_its_shortcut():
    """Each output of a stride 2 convolution looks at 2i-1, 2i, 2i+1."""
    network = backbones.resnet20()
    pad = network.get_layer("stage2_block1_conv1_pad")
    conv = network.get_layer("stage2_block1_conv1")
    centre_only = np.zeros(conv.kernel.shape, "float32")
    centre_only[1, 1] = np.eye(16, 32)
    conv.set_weights([centre_only])
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 16))
    shortcut = network.get_layer("stage2_block1_shortcut")
    np.testing.assert_allclose(conv(pad(x)), shortcut(x), rtol=1e-6)
