"""Losses as pure functions of tensors, each with a hand-computed test.

A method decides which classes are distilled, and from which teacher; the
functions here only compute.
"""

from keras_incremental.losses.cross_distilled import (
    classification_loss,
    distillation_loss,
    head_log_softmax,
)

__all__ = [
    "classification_loss",
    "distillation_loss",
    "head_log_softmax",
]
