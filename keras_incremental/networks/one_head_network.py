"""Branches with one head on the features of all of them."""

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from keras_incremental.graphs import (
    clone_network,
    cloned_layer,
    copy_weights,
    differ_in_weights_alone,
    finalize_normalizations,
)
from keras_incremental.layers import ExpandableDense
from keras_incremental.networks.branching import BranchingNetwork
from keras_incremental.networks.network import Network, traced_inference


@keras.saving.register_keras_serializable(package="keras_incremental")
class OneHeadNetwork(BranchingNetwork):
    """Branches on a frozen trunk, and one head on the features of all.

    The newest branch and the head are trained. Base and old branches are
    frozen, in inference mode: their features, like the trunk's outputs, may be
    cached, so that a train step costs the newest branch alone. A new branch's
    features enter the head with weights of 0 for the old classes, so that old
    logits stay what they are until training changes them.

    Source: MEMO (Zhou et al., ICLR 2023, arXiv:2205.13218); with
    `branch_at=0` DER (Yan et al., CVPR 2021, arXiv:2103.16788). The authors
    start the new features' weights for old classes at random.

    Args:
        base: a `SingleNetwork` with a branch point. It is frozen.
        branches: models from the trunk's outputs to features.
        head: the classification layer on all features; by default the base's,
            widened.
        auxiliary: layers on the newest branch's features, trained beside the
            head, which have no say: for an objective.
        **kwargs: those of `keras.layers.Layer`.

    >>> from keras_incremental.networks import SingleNetwork
    >>> backbone = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> network = OneHeadNetwork(SingleNetwork(backbone, branch_at=0.5))
    >>> network = network.with_branch()
    >>> network.grow(5)
    >>> logits, features = network(keras.ops.ones((1, 4)))
    >>> logits.shape, features.shape
    (TensorShape([1, 5]), TensorShape([1, 4]))
    """

    def __init__(
        self,
        base: Network,
        branches: Iterable = (),
        head: ExpandableDense | None = None,
        auxiliary: Iterable = (),
        **kwargs: Any,
    ):
        super().__init__(base, **kwargs)
        self.branches, self.auxiliary = list(branches), list(auxiliary)
        self.head = head or base.head.widened(self.feature_dim)
        if not self.head.built:
            self.head.build((None, self.feature_dim))
        for layer in self.auxiliary:
            layer.build((None, self.networks[-1].output_shape[-1]))
        self.built = True
        self._trace_branches()

    def head_layers(self):
        return [self.head]

    @property
    def feature_dim(self):
        return sum(network.output_shape[-1] for network in self.networks)

    @property
    def networks(self):
        return [self.tail, *self.branches]

    def branch_heads(self):
        heads = []
        for network in self.branches:
            heads.append(ExpandableDense((self.units,)))
            heads[-1].build((None, network.output_shape[-1]))
        return heads

    def with_branch(self, network=None):
        network = clone_network(self.tail) if network is None else network
        dim = self.feature_dim + network.output_shape[-1]
        return type(self)(
            self._base, [*self.branches, network], self.head.widened(dim)
        )

    def add_auxiliary(self, units: int) -> None:
        """Adds a classifier on the newest features, with its own weights.

        Args:
            units: its outputs.
        """
        layer = keras.layers.Dense(
            units,
            kernel_regularizer=self.head.kernel_regularizer,
            dtype=self.head.dtype_policy,
            name="auxiliary",
        )
        layer.build((None, self.networks[-1].output_shape[-1]))
        self.auxiliary.append(layer)

    def shrink(self, num_heads):
        self.head.truncate(num_heads)
        return self

    def frozen(self, images: tf.Tensor) -> Any:
        """Returns the trunk's outputs and the features of old branches."""
        outputs = super().frozen(images)
        parts = [self._base.cut.tail_features(outputs)]
        parts += [branch(outputs) for branch in self._inferences[:-1]]
        return outputs, tf.concat(parts, axis=-1)

    def trained(self, frozen, training=False):
        outputs, features = frozen
        if self.branches:
            newest = self.branches[-1](outputs, training=training)
            features = tf.concat([features, newest], axis=-1)
        return self.head(features), features

    def structure(self):
        head = keras.saving.serialize_keras_object(self.head)
        auxiliary = keras.saving.serialize_keras_object(self.auxiliary)
        return {**super().structure(), "head": head, "auxiliary": auxiliary}

    def twin(self):
        head = ExpandableDense.from_config(self.head.get_config())
        branches = [
            keras.models.clone_model(branch, clone_function=cloned_layer)
            for branch in self.branches
        ]
        twin = type(self)(self._base.twin(), branches, head)
        twin._copy_values(self)
        return twin

    def copy_from(self, other):
        if type(other) is not type(self) or not self._is_like(other):
            return False
        self._base.copy_from(other.base())
        self._copy_values(other)
        return True

    def _copy_values(self, other: "OneHeadNetwork") -> None:
        for network, source in zip(self.branches, other.branches, strict=True):
            copy_weights(network, source)
        self.head.copy_from(other.head)

    def _is_like(self, other: "OneHeadNetwork") -> bool:
        """Whether the two differ in weights alone."""
        return (
            len(self.branches) == len(other.branches)
            and self.head.has_room_of(other.head)
            and self._base.is_like(other.base())
            and all(map(differ_in_weights_alone, self.branches, other.branches))
        )

    def state_variables(self):
        auxiliary = [v for layer in self.auxiliary for v in layer.variables]
        return super().state_variables() + self.head.variables + auxiliary

    def finalize_state(self):
        super().finalize_state()
        for network in self.branches:
            finalize_normalizations(network)
        self._trace_branches()

    def _trace_branches(self) -> None:
        """Makes a function for each branch, traced once."""
        self._inferences = [*map(traced_inference, self.branches)]
