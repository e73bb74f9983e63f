"""The Keras callback that makes one `fit` one task, and those it tells."""

from keras_incremental.callbacks.incremental_callback import (
    IncrementalCallback,
)
from keras_incremental.callbacks.task_callback import TaskCallback

__all__ = ["IncrementalCallback", "TaskCallback"]
