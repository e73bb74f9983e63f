"""The classifier that grows: backbone, head, teacher, train step."""

from keras_incremental.models.incremental_classifier import (
    IncrementalClassifier,
)
from keras_incremental.models.incremental_fit import FitRequest, IncrementalFit
from keras_incremental.models.unit_data import (
    evaluation_data,
    unit_validation_data,
)

__all__ = [
    "FitRequest",
    "IncrementalClassifier",
    "IncrementalFit",
    "evaluation_data",
    "unit_validation_data",
]
