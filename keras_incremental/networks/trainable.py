"""The layers of a network and their `trainable` flags, all of them."""

import keras


def set_trainable(layer: keras.layers.Layer, value: bool) -> None:
    """Sets the flag of a layer and of all layers in it.

    Keras passes a flag on only where it changes, so that a layer that was
    loaded with the flag of its own would leave those in it as they are.
    `_flatten_layers` is private: it alone gives the layers in any layer, each
    after what holds it.
    """
    for part in layer._flatten_layers():
        part.trainable = value


def all_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns a layer and those in it, also in layers that are no models.

    Keras has no public list of these; `_flatten_layers` is what its own
    `variables` and `losses` are collected by.
    """
    return list(layer._flatten_layers())
