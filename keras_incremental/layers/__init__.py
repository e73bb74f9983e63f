"""Keras layers: a head that takes new classes in use, and a faster norm."""

from keras_incremental.layers.expandable_dense import ExpandableDense
from keras_incremental.layers.fused_batch_normalization import (
    FusedBatchNormalization,
)

__all__ = [
    "ExpandableDense",
    "FusedBatchNormalization",
]
