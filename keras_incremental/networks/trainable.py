"""The `trainable` flags of a network, all of them."""

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
