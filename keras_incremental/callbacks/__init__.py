"""The callback that turns `model.fit` into an incremental step."""

from keras_incremental.callbacks.incremental_callback import (
    IncrementalCallback,
    StepReport,
)

__all__ = ["IncrementalCallback", "StepReport"]
