"""The arguments of Keras' `fit` that an incremental step takes or refuses."""

import numpy as np
from keras.callbacks import BackupAndRestore

from keras_incremental.models import FitRequest, IncrementalClassifier
from keras_incremental.samples import Samples

_DEFAULT_BATCH_SIZE = 32
_REFUSED = {
    "sample_weight": "every image weighs the same in the loss",
    "class_weight": "the balanced fine-tuning weighs classes alike",
    "initial_epoch": "a step starts at its first epoch",
    "steps_per_epoch": "an epoch is one pass over new data and exemplars",
    "validation_split": "pass validation_data=(images, labels)",
}


def batch_size_of(request: FitRequest, samples: Samples) -> int:
    """Returns the batch size: as passed, as the dataset's, or Keras' 32."""
    return request.batch_size or samples.batch_size or _DEFAULT_BATCH_SIZE


def check_options(model: IncrementalClassifier, request: FitRequest) -> None:
    """Refuses what has no meaning in an incremental step.

    Raises:
        ValueError: for a Keras option or a callback that cannot be honoured.
    """
    for name, value in request.options.items():
        is_default = value is None or (np.isscalar(value) and value == 0)
        if name in _REFUSED and not is_default:
            raise ValueError(
                f"fit got {name} beside an IncrementalCallback: "
                f"{_REFUSED[name]}. Leave {name} out."
            )
    if model.steps_per_execution != 1:
        raise ValueError(
            "The model is compiled with steps_per_execution="
            f"{model.steps_per_execution!r}, of which Keras rounds an epoch up "
            "to a multiple. Leave it out beside an IncrementalCallback."
        )
    if any(isinstance(item, BackupAndRestore) for item in request.callbacks):
        raise ValueError(
            "fit got BackupAndRestore beside an IncrementalCallback; it knows "
            "nothing of classes, phases, teacher and memory. Leave it out, and "
            "pass IncrementalCallback(backup_dir=...)."
        )
    if request.options.get("shuffle") not in (None, True):
        raise ValueError(
            "fit got shuffle=False beside an IncrementalCallback; new data "
            "and exemplars are always shuffled together. Leave it out."
        )
    for name in ("epochs", "batch_size"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}; expected 1 or more.")
