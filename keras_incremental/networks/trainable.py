"""The layers of a network and their `trainable` flags, all of them."""

import keras


def all_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns a layer and those in it, each after what holds it.

    Those in layers that are no models are among them. Keras has no public list
    of these; `_flatten_layers` is what its own `variables` and `losses` are
    collected by.
    """
    return layer._flatten_layers()


def set_trainable(layer: keras.layers.Layer, value: bool) -> None:
    """Sets the flag of a layer and of all layers in it.

    Keras passes a flag on only where it changes, so that a layer that was
    loaded with the flag of its own would leave those in it as they are.
    """
    for part in all_layers(layer):
        part.trainable = value
