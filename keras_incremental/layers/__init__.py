"""Keras layers: those that take in new classes in use, and a faster one."""

from keras_incremental.layers.branches import (
    Branch,
    Branches,
    Traced,
    copy_weights,
    finalize_normalizations,
)
from keras_incremental.layers.expandable_dense import ExpandableDense
from keras_incremental.layers.fused_batch_normalization import (
    FusedBatchNormalization,
)

__all__ = [
    "Branch",
    "Branches",
    "ExpandableDense",
    "FusedBatchNormalization",
    "Traced",
    "copy_weights",
    "finalize_normalizations",
]
