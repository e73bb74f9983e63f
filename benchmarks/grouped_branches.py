"""Branches of equal shape: one after another, or as one grouped computation.

    python benchmarks/grouped_branches.py

Times inference of a trunk with several branches, in turns: as the package runs
them, each branch its own layers, and with the same weights in layers of all
branches at once, whose convolutions have a group for each branch. TensorFlow
merges a convolution and the normalisation behind it, but not one of groups, so
that this is done by hand. Says by how much the logits of both differ.
"""

import os
import statistics
import time

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import keras_incremental as ki
from keras_incremental.backbones.cifar_resnet import ZeroPadShortcut
from keras_incremental.layers import FusedBatchNormalization
from keras_incremental.networks import BranchedNetwork

_BRANCHES = flags.DEFINE_list("branches", ["5", "10"], "")
_BATCHES = flags.DEFINE_list("batch_sizes", ["1", "8", "64"], "")
_RUNS = flags.DEFINE_integer("runs", 40, "Timed, of each way.")
_BACKBONE = flags.DEFINE_string("backbone", "resnet32", "Of the CIFAR ones.")
_BRANCH_AT = flags.DEFINE_string("branch_at", "stage2", "Of the branches.")
_CLASSES = 2


class GroupedShortcut(ZeroPadShortcut):
    """The shortcut, which adds its zeros behind each group's channels."""

    def __init__(self, groups, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups

    def call(self, x):
        channels = x.shape[-1] // self.groups
        x = tf.nn.avg_pool2d(x, 1, self.strides, "VALID")
        shape = tf.unstack(tf.shape(x)[:3])
        x = tf.reshape(x, [*shape, self.groups, channels])
        added = self.filters // self.groups - channels
        x = tf.pad(x, [[0, 0]] * 4 + [[0, added]])
        return tf.reshape(x, [*shape, self.filters])


class Bias(keras.layers.Layer):
    """What is left of a normalisation merged with its convolution."""

    def build(self, input_shape):
        self.bias = self.add_weight(shape=(input_shape[-1],))

    def call(self, x, mask=None):
        return tf.nn.bias_add(x, self.bias)


def grouped(networks):
    """Returns one network of equal ones: their channels, end to end."""
    first, groups = networks[0], len(networks)

    def of_all(layer):
        kind, config = type(layer), layer.get_config()
        if kind is FusedBatchNormalization:
            return Bias(name=layer.name)
        if kind is keras.layers.Conv2D:
            config |= {"filters": config["filters"] * groups, "groups": groups}
        elif kind is ZeroPadShortcut:
            kind = GroupedShortcut
            config |= {"filters": config["filters"] * groups, "groups": groups}
        return kind.from_config(config)

    shape = first.input_shape[1:-1]
    inputs = keras.Input((*shape, first.input_shape[-1] * groups))
    network = keras.models.clone_model(first, inputs, clone_function=of_all)
    for layer in network.layers:
        if layer.weights:
            parts = [merged(n, layer.name) for n in networks]
            layer.set_weights([np.concatenate(parts, axis=-1)])
    return network


def merged(network, name):
    """Returns a convolution's kernel, or a normalisation's bias, merged.

    Each convolution of our backbones has a normalisation of its own behind it.
    """
    layer = network.get_layer(name)
    if isinstance(layer, keras.layers.Conv2D):
        (kernel,) = layer.get_weights()
        norm = network.get_layer(name.replace("_conv", "_bn"))
        gamma, _, _, variance = norm.get_weights()
        return kernel * gamma / np.sqrt(variance + norm.epsilon)
    gamma, beta, mean, variance = layer.get_weights()
    return beta - mean * gamma / np.sqrt(variance + layer.epsilon)


def two_ways(model):
    """Returns inference branch by branch, and of all at once."""
    trunk, branches = model.network.trunk, model.network.branches
    count, units = len(branches), model.num_classes - _CLASSES
    network = grouped([branch.backbone for branch in branches])
    weights = [branch.head.head_weights(0) for branch in branches]
    kernels, biases = map(np.stack, zip(*weights, strict=True))
    biases = biases[:, None]

    def one_by_one(images):
        outputs = trunk(images, training=False)
        return tf.concat([branch(outputs)[0] for branch in branches], axis=-1)

    def at_once(images):
        outputs = trunk(images, training=False)
        outputs = tf.tile(outputs, [1, 1, 1, count])
        features = network(outputs, training=False)
        features = tf.reshape(features, [-1, count, kernels.shape[1]])
        logits = tf.einsum("bgd,gdu->gbu", features, kernels) + biases
        return tf.reshape(tf.transpose(logits, [1, 0, 2]), [-1, units])

    return tf.function(one_by_one), tf.function(at_once)


def median_seconds(ways, images):
    """Returns the median seconds of each way, run in turns."""
    seconds = []
    for turn in range(_RUNS.value + 2):
        seconds.append([])
        for way in ways:
            started = time.perf_counter()
            way(images).numpy()
            seconds[turn].append(time.perf_counter() - started)
    return [statistics.median(s) for s in zip(*seconds[2:], strict=True)]


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    print(
        f"keras {keras.__version__}, tensorflow {tf.__version__}, "
        f"{os.cpu_count()} cores; {_BACKBONE.value}, branches at "
        f"{_BRANCH_AT.value}"
    )
    for count in map(int, _BRANCHES.value):
        backbone = getattr(ki.backbones, _BACKBONE.value)((32, 32, 3))
        model = ki.IncrementalClassifier(backbone, branch_at=_BRANCH_AT.value)
        for task in range(count + 1):
            if task:
                model.network = BranchedNetwork.on(model.network).with_branch()
            model.add_classes(range(_CLASSES * task, _CLASSES * (task + 1)))
        ways = two_ways(model)
        for size in map(int, _BATCHES.value):
            images = random.integers(0, 256, (size, 32, 32, 3), "uint8")
            images = tf.constant(images)
            apart, together = (way(images).numpy() for way in ways)
            seconds = median_seconds(ways, images)
            print(
                f"{count} branches, {size} images: one by one "
                f"{seconds[0] * 1e3:.2f} ms, grouped {seconds[1] * 1e3:.2f} "
                f"ms, ratio {seconds[1] / seconds[0]:.2f}; logits differ by "
                f"{np.abs(apart - together).max():.1e}"
            )


if __name__ == "__main__":
    app.run(main)
