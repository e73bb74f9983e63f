"""The numbers we report, each with its formula, on NumPy arrays alone.

"Forgetting" and "average accuracy" are computed in different ways by
different libraries. Here each metric is a function with its definition and
its source in the docstring, and `AccuracyMatrix` owns the results they are
computed from. Nothing here imports TensorFlow or Keras.
"""

from keras_incremental.metrics.accuracy_matrix import AccuracyMatrix
from keras_incremental.metrics.classification import (
    accuracy,
    confusion_matrix,
    per_task_accuracy,
    task_aware_predictions,
    top_k_accuracy,
)
from keras_incremental.metrics.incremental import (
    average_incremental_accuracy,
    average_incremental_accuracy_after_first,
    backward_transfer,
    forgetting,
)

__all__ = [
    "AccuracyMatrix",
    "accuracy",
    "average_incremental_accuracy",
    "average_incremental_accuracy_after_first",
    "backward_transfer",
    "confusion_matrix",
    "forgetting",
    "per_task_accuracy",
    "task_aware_predictions",
    "top_k_accuracy",
]
