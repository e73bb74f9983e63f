"""The arguments of Keras' `fit` that an incremental step takes or refuses."""

import numbers

import numpy as np
from keras.callbacks import BackupAndRestore

from keras_incremental.models import FitRequest, IncrementalClassifier
from keras_incremental.samples import Samples

_DEFAULT_BATCH_SIZE = 32
_REFUSED = {
    "sample_weight": "exemplars would have lost it by the next fit; pass "
    "class_weight={label: weight}, or leave out images that count for nothing",
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


def check_class_weight(request: FitRequest, labels) -> None:
    """Refuses weights by which no image can be weighted.

    Args:
        request: What the user passed to `fit`.
        labels: those that the model knows or learns.

    Raises:
        ValueError: for a weight that is no number >= 0, or another label.
    """
    for label, weight in (request.options.get("class_weight") or {}).items():
        if not (isinstance(weight, numbers.Real) and 0 <= weight < np.inf):
            raise ValueError(
                f"class_weight has {weight!r} for label {label!r}; expected a "
                "number of 0 or more."
            )
        if label not in labels:
            raise ValueError(
                f"class_weight has the label {label!r}, which the model "
                "neither knows nor learns in this fit. Pass weights by label."
            )
