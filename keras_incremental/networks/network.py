"""What a classifier's network is: images to features and logits, growing."""

import abc
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from keras_incremental.layers import ExpandableDense


class Network(keras.layers.Layer):
    """Turns images into features and logits, and grows by heads of classes.

    A network has a part that is frozen and a part that is trained:

        logits, features = network.trained(network.frozen(images), training)

    What `frozen` returns never changes while a task is learned, so it may be
    computed once for each image and cached. A network in which everything is
    trained returns the images themselves.

    Growth never changes the logits of the classes that are there.

    Kinds: `SingleNetwork`, `FrozenTrunkNetwork`, `BranchedNetwork`,
    `OneHeadNetwork` and `TrainedTrunkNetwork`.

    Attributes:
        has_frozen_part: whether there is something to cache: whether `frozen`
            returns anything but the images.
    """

    has_frozen_part = False

    def __init__(self, **kwargs: Any):
        # What the parts compute in is their own affair.
        super().__init__(autocast=False, **kwargs)
        self.supports_jit = False

    # Classes.

    @abc.abstractmethod
    def head_layers(self) -> list[ExpandableDense]:
        """Returns the classification layers; the last one is trained."""

    @property
    def heads(self) -> list[slice]:
        """The units of each head, in order of arrival."""
        heads, first = [], 0
        for layer in self.head_layers():
            heads += [
                slice(first + head.start, first + head.stop)
                for head in layer.heads
            ]
            first += layer.units
        return heads

    @property
    def trained_head(self) -> ExpandableDense:
        """The classification layer that is trained, and takes new classes."""
        return self.head_layers()[-1]

    @property
    def units(self) -> int:
        """How many classes there are, all heads together."""
        return self.heads[-1].stop if self.heads else 0

    @property
    def trained_units(self) -> slice:
        """The units whose logits `trained` returns."""
        return slice(0, self.units)

    def grow(self, units: int, seed: int | None = None) -> None:
        """Adds a head for `units` new classes; the rest stays as it is.

        Args:
            units: how many classes.
            seed: Seed for initialising the new head.
        """
        self.trained_head.expand(units, seed)

    @abc.abstractmethod
    def shrink(self, num_heads: int) -> "Network":
        """Removes the heads after the first `num_heads`.

        A branch without any head of its own is removed as well.

        Returns:
            The network to go on with: this one, or its base if all branches
            are gone.
        """

    def forget(self, units: Iterable[int]) -> None:
        """Removes the columns of some classes from the classification layers.

        Args:
            units: of the classes.
        """
        units, first = np.asarray(units), 0
        for layer in self.head_layers():
            last = first + layer.units
            layer.remove_units(units[(units >= first) & (units < last)] - first)
            first = last

    def head_weights(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns kernel `(features, units)` and bias `(units,)` of a head.

        Args:
            index: The head's, in order of arrival; -1 is the newest.
        """
        layer, index = _place_of_head(self.head_layers(), index)
        return layer.head_weights(index)

    def set_head_weights(
        self, index: int, kernel: ArrayLike, bias: ArrayLike
    ) -> None:
        """Assigns what `head_weights` returns.

        Raises:
            ValueError: if a shape is not that of the head.
        """
        layer, index = _place_of_head(self.head_layers(), index)
        layer.set_head_weights(index, kernel, bias)

    # Computing.

    def frozen(self, images: tf.Tensor) -> Any:
        """Returns what the frozen part makes of a batch of images.

        Returns:
            A tensor, or a tuple of tensors, batch first.
        """
        return images

    @abc.abstractmethod
    def trained(
        self, frozen: Any, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns logits and features of the part that is trained.

        Args:
            frozen: what `frozen` returned.
            training: whether dropout, batch statistics etc. are those of
                training.

        Returns:
            `(batch, trained units)` logits, `(batch, dim)` features.
        """

    def outputs(self, frozen: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns all logits, in inference mode, and the features.

        Args:
            frozen: what `frozen` returned.

        Returns:
            `(batch, units)` logits, `(batch, dim)` features.
        """
        return self.trained(frozen, training=False)

    def features(self, frozen: Any) -> tf.Tensor:
        """Returns the features `(batch, dim)` in inference mode."""
        return self.outputs(frozen)[1]

    def call(self, inputs, training=None):
        frozen = self.frozen(inputs)
        if training and self.trained_units == slice(0, self.units):
            return self.trained(frozen, training=True)
        return self.outputs(frozen)

    @property
    @abc.abstractmethod
    def feature_dim(self) -> int:
        """The number of features."""

    # State.

    @abc.abstractmethod
    def base(self) -> "Network":
        """The network that was there before any branch."""

    @abc.abstractmethod
    def structure(self) -> dict:
        """Returns what `with_structure` needs beside the base, JSON types."""

    @classmethod
    @abc.abstractmethod
    def with_structure(cls, base: "Network", structure: dict) -> "Network":
        """Returns a network of such a structure, on `base`; weights apart."""

    @abc.abstractmethod
    def twin(self) -> "Network":
        """Returns a copy with variables of its own and the same values."""

    @abc.abstractmethod
    def copy_from(self, other: "Network") -> bool:
        """Takes over the values of a network that is made alike.

        Returns:
            `False`, with nothing changed, if the other is made otherwise.
        """

    @abc.abstractmethod
    def state_variables(self) -> list:
        """Returns all variables, in a fixed order."""

    @abc.abstractmethod
    def activate(self) -> None:
        """Sets which layers are trainable, as the network is to be used."""

    @abc.abstractmethod
    def finalize_state(self) -> None:
        """Makes all that is computed from variables follow their values."""


def _place_of_head(
    layers: Iterable[ExpandableDense], index: int
) -> tuple[ExpandableDense, int]:
    """Returns the layer that holds a head, and the head's index there."""
    places = [(layer, i) for layer in layers for i in range(len(layer.heads))]
    return places[index]


def trained_outputs(
    network: Network, columns: Mapping, training: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what `network.trained` does, of a batch that may be cached.

    Args:
        network: of which to run the trained part.
        columns: `{"images": images}`, or `{"frozen": outputs}` of the frozen
            part.
        training: as for `network.trained`.
    """
    frozen = columns.get("frozen")
    if frozen is None:
        frozen = network.frozen(columns["images"])
    return network.trained(frozen, training)


def traced(function: Callable) -> Callable:
    """Returns a function of batches that is traced once for all sizes of them.

    TensorFlow alone traces for the first size, and again for any. It also warns
    of too many traces, and counts those of all models as one function's; one
    that is asked for by its signature is not among them.

    Args:
        function: of structures of tensors, batch first, and numbers.

    >>> double = traced(lambda x: 2 * x)
    >>> double(np.ones(1)).numpy().tolist(), double(np.ones(2)).numpy().tolist()
    ([2.0], [2.0, 2.0])
    """
    compiled = tf.function(function, reduce_retracing=True)

    def call(*args):
        if tf.executing_eagerly():
            compiled.get_concrete_function(
                *keras.tree.map_structure(_of_any_size, args)
            )
        return compiled(*args)

    return call


def _of_any_size(value):
    if not hasattr(value, "shape"):
        return value
    return tf.TensorSpec([None, *value.shape[1:]], value.dtype)


def traced_inference(network: keras.Model) -> Callable:
    """Returns a network in inference mode, traced once, without gradient.

    A network that calls one for each branch is traced anew when a branch is
    added, and finds the traces of all others ready.
    """
    return traced(
        lambda inputs: tf.stop_gradient(network(inputs, training=False))
    )
