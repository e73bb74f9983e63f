"""Keras layers that take in new classes while they are in use."""

from keras_incremental.layers.expandable_dense import ExpandableDense

__all__ = ["ExpandableDense"]
