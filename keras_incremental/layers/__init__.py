"""Keras layers that take in new classes while they are in use."""

from keras_incremental.layers.branches import (
    Branch,
    Branches,
    Traced,
    copy_weights,
    finalize_normalizations,
)
from keras_incremental.layers.expandable_dense import ExpandableDense

__all__ = [
    "Branch",
    "Branches",
    "ExpandableDense",
    "Traced",
    "copy_weights",
    "finalize_normalizations",
]
