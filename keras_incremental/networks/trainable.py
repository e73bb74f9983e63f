"""The layers of a network and their `trainable` flags, all of them."""

from collections.abc import Iterator

import keras


def with_sublayers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """Yields a layer and those in it, each after what holds it."""
    yield layer
    for part in getattr(layer, "layers", ()):
        yield from with_sublayers(part)


def set_trainable(layer: keras.layers.Layer, value: bool) -> None:
    """Sets the flag of a layer and of all layers in it.

    Keras passes a flag on only where it changes, so that a layer that was
    loaded with the flag of its own would leave those in it as they are.
    """
    for part in with_sublayers(layer):
        part.trainable = value


def all_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns a layer and those in it, also in layers that are no models.

    Keras has no public list of these; `_flatten_layers` is what its own
    `variables` and `losses` are collected by.
    """
    return list(layer._flatten_layers())
