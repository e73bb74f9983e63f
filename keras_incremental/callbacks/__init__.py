"""The Keras callback that makes one `fit` one task."""

from keras_incremental.callbacks.incremental_callback import (
    IncrementalCallback,
)

__all__ = ["IncrementalCallback"]
