"""Pretrained trunks: what each costs, for a table of budgets.

    python benchmarks/trunks.py

Builds each network to its features at 224 pixels, with random weights, and
prints its features, parameters, multiply-accumulates and bytes as float32.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from absl import app, flags

import keras_incremental as ki
from keras_incremental.graphs import count_network

_SIZE = flags.DEFINE_integer("size", 224, "Pixels of each side.")
_APPLICATIONS = flags.DEFINE_list(
    "applications",
    ["MobileNetV3Small", "MobileNetV2", "EfficientNetV2B0", "ResNet50"],
    "Of keras.applications.",
)


def networks(shape):
    """Yields the networks to features, ours first."""
    yield ki.backbones.efficientnet_lite0(shape)
    for name in _APPLICATIONS.value:
        yield getattr(keras.applications, name)(
            input_shape=shape, weights=None, include_top=False, pooling="avg"
        )


def main(argv):
    """Prints a row for each network."""
    del argv
    print("| trunk | features | parameters | MACs | float32 |")
    print("|---|---|---|---|---|")
    for network in networks((_SIZE.value, _SIZE.value, 3)):
        macs = sum(node.macs for node in count_network(network))
        parameters = network.count_params()
        print(
            f"| {network.name} | {network.output_shape[-1]} "
            f"| {parameters / 1e6:.2f} M | {macs / 1e6:.0f} M "
            f"| {4 * parameters / 1e6:.1f} MB |"
        )


if __name__ == "__main__":
    app.run(main)
