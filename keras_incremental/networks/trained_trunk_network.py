"""Branches with one head, on a trunk that is trained with the newest."""

import keras
import tensorflow as tf

from keras_incremental.networks.one_head_network import OneHeadNetwork


@keras.saving.register_keras_serializable(package="keras_incremental")
class TrainedTrunkNetwork(OneHeadNetwork):
    """A `OneHeadNetwork` whose trunk is trained on.

    Trunk, newest branch and head are trained. The weights of old branches are
    frozen, and gradients pass through them to the trunk; their features change
    with it. So nothing can be cached, and a train step runs all branches.

    Source: MEMO (Zhou et al., ICLR 2023, arXiv:2205.13218), whose generalized
    blocks are trained in each task.

    Args:
        base: a `SingleNetwork` with a branch point.
        branches, head, auxiliary: as for `OneHeadNetwork`.
        **kwargs: those of `keras.layers.Layer`.

    >>> from keras_incremental.networks import SingleNetwork
    >>> backbone = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> network = TrainedTrunkNetwork(SingleNetwork(backbone, branch_at=0.5))
    >>> network.with_branch().has_frozen_part
    False
    """

    has_frozen_part = False

    def frozen(self, images):
        return images

    def trained(self, frozen, training=False):
        outputs = self.trunk(frozen, training=training)
        *old, newest = self.networks
        parts = [network(outputs, training=False) for network in old]
        parts.append(newest(outputs, training=training))
        features = tf.concat(parts, axis=-1)
        return self.head(features), features

    def activate(self):
        super().activate()
        self._base.freeze(but_trunk=True)
