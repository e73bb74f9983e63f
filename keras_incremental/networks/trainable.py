"""The `trainable` flags of a network, all of them."""

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
