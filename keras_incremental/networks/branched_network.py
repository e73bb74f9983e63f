"""Branches, each with a head on its own features: partial network sharing."""

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from keras_incremental.graphs import (
    clone_network,
    copy_weights,
    differ_in_weights_alone,
)
from keras_incremental.layers import ExpandableDense
from keras_incremental.networks.branching import BranchingNetwork
from keras_incremental.networks.single_network import SingleNetwork

_CAPACITY = 16


@keras.saving.register_keras_serializable(package="keras_incremental")
class BranchedNetwork(BranchingNetwork):
    """Branches on a frozen trunk, each with a head on its own features.

    The newest branch alone is trained; base and old branches are frozen, in
    inference mode, so that their logits stay the same bit for bit. All logits
    together are the output, the base's first.

    The newest branch keeps its variables from task to task, so that a compiled
    train function stays valid: `with_branch` moves the weights it has learned
    to a frozen twin and gives it those of its successor.

    Source: Sarwar, Ankit and Roy, IEEE Access 8, 2020 (arXiv:1712.02719),
    "clone and branch".

    Args:
        base: a `SingleNetwork` with a branch point. It is frozen.
        branches: those to start with, each a `SingleNetwork` from the trunk's
            outputs to features and logits.
        **kwargs: those of `keras.layers.Layer`.

    >>> from keras_incremental.networks import SingleNetwork
    >>> backbone = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> network = BranchedNetwork(SingleNetwork(backbone, branch_at=0.5))
    >>> network.with_branch().grow(2)
    >>> network(keras.ops.ones((5, 4)))[0].shape
    TensorShape([5, 2])
    """

    def __init__(
        self, base: SingleNetwork, branches: Iterable = (), **kwargs: Any
    ):
        super().__init__(base, **kwargs)
        self.branches = list(branches)
        self.built = True

    def head_layers(self):
        return [self._base.head, *self.branch_heads()]

    @property
    def trained_units(self):
        return self.heads[-1]

    @property
    def feature_dim(self):
        network = self.branches[-1].backbone if self.branches else self.tail
        return network.output_shape[-1]

    @property
    def networks(self) -> list[keras.Model]:
        """From the trunk's outputs to features: the base's, each branch's."""
        return [self.tail, *(branch.backbone for branch in self.branches)]

    def branch_heads(self):
        return [branch.head for branch in self.branches]

    @property
    def part_sizes(self) -> list[int]:
        """Number of classes of the base and of each branch."""
        return [self._base.units, *(branch.units for branch in self.branches)]

    def with_branch(
        self, network: keras.Model | None = None
    ) -> "BranchedNetwork":
        """Adds a branch to this network, and returns it."""
        network = clone_network(self.tail) if network is None else network
        newest = self.branches[-1] if self.branches else None
        if newest is None or not differ_in_weights_alone(
            newest.backbone, network
        ):
            # The base's policy: its logits and these are joined, and the global
            # policy, which a clone takes, may have changed since.
            head = ExpandableDense(
                capacity=_CAPACITY,
                kernel_regularizer=self._base.head.kernel_regularizer,
                dtype=self._base.head.dtype_policy,
                name=self._base.head.name,
            )
            self.branches.append(SingleNetwork(network, head))
        else:
            # Keras lists the weights of branches in the order of arrival.
            self.branches.pop()
            self.branches.extend([newest.twin(), newest])
            copy_weights(newest.backbone, network)
            newest.head.truncate(0)
        self.activate()
        return self

    def shrink(self, num_heads):
        while self.branches:
            head, more = self.branches[-1].head, len(self.heads) - num_heads
            if head.heads and more < len(head.heads):
                head.truncate(len(head.heads) - max(more, 0))
                break
            self._remove_newest()
        if not self.branches:
            return self._base.shrink(num_heads)
        self.activate()
        return self

    def _remove_newest(self) -> None:
        newest, *before = reversed(self.branches)
        if before and differ_in_weights_alone(
            before[0].backbone, newest.backbone
        ):
            twin = self.branches.pop(len(self.branches) - 2)
            twin.head.reserve(newest.head.allocated - twin.head.units)
            newest.copy_from(twin)
        else:
            self.branches.pop()

    def trained(self, frozen, training=False):
        return self.branches[-1].trained(frozen, training)

    def features(self, frozen):
        if not self.branches:
            return self._base.cut.tail_features(frozen)
        return self.branches[-1].features(frozen)

    def outputs(self, frozen):
        parts = self.part_outputs(frozen)
        logits = tf.concat([logits for logits, _ in parts], axis=-1)
        return logits, parts[-1][1]

    def part_logits(self, frozen: Any) -> list[tf.Tensor]:
        """Returns the logits of the base and of each branch.

        Old ones give the same bits for ever. Outside of a graph each part runs
        by a function that has been traced before.

        Args:
            frozen: what `frozen` returned.
        """
        return [logits for logits, _ in self.part_outputs(frozen)]

    def part_outputs(self, frozen: Any) -> list[tuple]:
        """Returns logits and features of the base and of each branch."""
        features = self._base.cut.tail_features(frozen)
        parts = [branch.inference(frozen) for branch in self.branches]
        return [(self._base.head(features), features), *parts]

    def twin(self):
        branches = [branch.twin() for branch in self.branches]
        return BranchedNetwork(self._base.twin(), branches)

    def copy_from(self, other):
        return False  # A teacher of branches is made anew for each task.

    def finalize_state(self):
        super().finalize_state()
        for branch in self.branches:
            branch.finalize_state()
