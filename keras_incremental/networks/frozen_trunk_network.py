"""A backbone whose first layers are frozen from the start, and one head."""

from typing import Any

import keras

from keras_incremental.layers import ExpandableDense
from keras_incremental.networks.single_network import SingleNetwork
from keras_incremental.networks.trainable import set_trainable


@keras.saving.register_keras_serializable(package="keras_incremental")
class FrozenTrunkNetwork(SingleNetwork):
    """A `SingleNetwork` of which the layers before the cut are never trained.

    They run in inference mode, and what they make of an image may be cached.
    It suits pretrained layers.

    Args:
        backbone, head: as for `SingleNetwork`.
        branch_at: where to cut the backbone.
        **kwargs: those of `SingleNetwork`.

    Raises:
        ValueError: without a place to cut.

    >>> backbone = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> network = FrozenTrunkNetwork(backbone, branch_at=0.5)
    >>> network.frozen(keras.ops.ones((1, 4))).shape
    TensorShape([1, 3])
    """

    has_frozen_part = True

    def __init__(
        self,
        backbone: keras.Model,
        head: ExpandableDense | None = None,
        branch_at: str | float | None = None,
        **kwargs: Any,
    ):
        if branch_at is None:
            raise ValueError(
                "A trunk cannot be frozen without a branch point, its last "
                'layer: IncrementalClassifier(backbone, branch_at="stage5", '
                "freeze_trunk=True); keras_incremental.sharing.cut_points("
                "backbone) lists them."
            )
        super().__init__(backbone, head, branch_at, **kwargs)
        self.activate()

    def activate(self):
        super().activate()
        set_trainable(self.trunk, False)

    def frozen(self, images):
        return self.cut.trunk_outputs(images)

    def trained(self, frozen, training=False):
        features = self.tail(frozen, training=training)
        return self.head(features), features
