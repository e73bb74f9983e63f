"""Weights moved between networks that are made alike."""

import keras

_NOT_OF_THE_PLAN = ("build_config", "compile_config", "trainable")
_HOLD_NAMES = ("name", "keras_history", "input_layers", "output_layers")


def copy_weights(network: keras.Model, other: keras.Model) -> None:
    """Assigns the weights of a network that is made alike."""
    network.set_weights(other.get_weights())
    finalize_normalizations(network)


def finalize_normalizations(network: keras.Model) -> None:
    """Makes `Normalization` layers follow their weights.

    They compute with constants that are made from the weights; call this
    function after weights have been assigned.
    """
    for layer in _normalizations(network):
        layer.finalize_state()


def differ_in_weights_alone(network: keras.Model, other: keras.Model) -> bool:
    """Whether a network, given the weights of the other, computes the same.

    A traced function holds the statistics of `Normalization` as constants, so
    they have to be equal from the start.
    """
    return (
        _shapes(network) == _shapes(other)
        and _plan(network) == _plan(other)
        and _statistics(network) == _statistics(other)
    )


def _shapes(network: keras.Model) -> list[tuple]:
    return [tuple(weight.shape) for weight in network.weights]


def _statistics(network: keras.Model) -> list:
    return [
        weight.tolist()
        for layer in _normalizations(network)
        for weight in layer.get_weights()
    ]


def _plan(network: keras.Model) -> dict:
    """Returns the config of a network, with its layers numbered, not named."""
    numbers: dict[str, int] = {}

    def numbered(item, key=None):
        if key == "dtype":  # A policy has a name as well, which matters.
            return item
        if isinstance(item, dict):
            return {
                key: numbered(value, key)
                for key, value in item.items()
                if key not in _NOT_OF_THE_PLAN
            }
        if isinstance(item, list | tuple):
            return [numbered(value, key) for value in item]
        if key in _HOLD_NAMES and isinstance(item, str):
            return numbers.setdefault(item, len(numbers))
        return item

    return numbered(keras.saving.serialize_keras_object(network))


def _normalizations(network: keras.Model):
    """Yields the `Normalization` layers, those of nested models included."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            yield layer
        elif isinstance(layer, keras.Model):
            yield from _normalizations(layer)
