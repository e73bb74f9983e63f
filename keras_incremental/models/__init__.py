"""The classifier that grows, and the train step that serves every task."""

from keras_incremental.models.copies import copy_state, in_float32
from keras_incremental.models.finite import not_finite
from keras_incremental.models.incremental_classifier import (
    IncrementalClassifier,
)
from keras_incremental.models.incremental_fit import FitRequest, IncrementalFit
from keras_incremental.models.inference import batches_of, in_batches
from keras_incremental.models.unit_data import (
    evaluation_data,
    unit_validation_data,
)

__all__ = [
    "FitRequest",
    "IncrementalClassifier",
    "IncrementalFit",
    "batches_of",
    "copy_state",
    "evaluation_data",
    "in_batches",
    "in_float32",
    "not_finite",
    "unit_validation_data",
]
