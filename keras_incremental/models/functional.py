"""A classifier as an ordinary Functional model, to look at and to run."""

import keras
import numpy as np

from keras_incremental.networks import BranchingNetwork, Network
from keras_incremental.score_rules import ScoreRule


def as_functional(
    network: Network, score_rule: ScoreRule, name: str
) -> keras.Model:
    """Returns a Functional model of the same outputs.

    Backbone and branches are nested models that share their layers with the
    network. Each classification layer is a `Dense` layer with a copy of the
    columns in use.

    Args:
        network: without classes, the features are the output.
        score_rule: decides; the simplest one leaves the logits as they are.
        name: of the model.
    """
    image = network.base().backbone.inputs[0]
    images = keras.Input(image.shape[1:], dtype=image.dtype, name="images")
    features = _features(network, images)
    layers = network.head_layers()
    if len(layers) < len(features):
        features = [keras.layers.Concatenate(name="features")(features)]
    outputs = features[-1]
    if network.units:
        outputs = _logits(layers, features)
        if type(score_rule) is not ScoreRule:
            outputs = score_rule(features[-1], outputs)
    return keras.Model(images, outputs, name=name)


def _features(network: Network, images) -> list:
    """Returns the features of the backbone, or of base and branches."""
    if not isinstance(network, BranchingNetwork):
        return [_nested(network.backbone, network.backbone.name)(images)]
    outputs = _nested(network.trunk, "trunk")(images)
    names = ["base", *(f"branch_{i}" for i in range(1, len(network.networks)))]
    return [
        _nested(part, name)(outputs)
        for part, name in zip(network.networks, names, strict=True)
    ]


def _nested(part: keras.Model, name: str) -> keras.Model:
    """Returns the same layers as a model that no other model has called."""
    return keras.Model(part.inputs[0], part.outputs[0], name=name)


def _logits(layers: list, features: list):
    """Returns the logits of all classification layers, joined."""
    logits = []
    for index, (layer, inputs) in enumerate(zip(layers, features, strict=True)):
        name = f"head_{index}" if len(layers) > 1 else "head"
        dense = keras.layers.Dense(
            layer.units,
            trainable=layer.trainable,
            dtype=layer.dtype_policy,
            name=name,
        )
        logits.append(dense(inputs))
        heads = map(layer.head_weights, range(len(layer.heads)))
        kernels, biases = zip(*heads, strict=True)
        dense.set_weights(
            [np.concatenate(kernels, axis=1), np.concatenate(biases)]
        )
    if len(logits) == 1:
        return logits[0]
    return keras.layers.Concatenate(name="logits")(logits)
