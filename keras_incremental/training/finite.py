"""Ends a task that would leave something that is not a finite number."""

import math

import numpy as np

from keras_incremental.methods import TaskStep
from keras_incremental.models import IncrementalClassifier, not_finite

_MOST_IMAGES = 64


def check_finite(
    model: IncrementalClassifier, where: str, loss: float = 0.0
) -> None:
    """Refuses weights, or a loss, that are not finite.

    Args:
        model: the classifier, while it learns a task.
        where: the phase and the epoch, for the message.
        loss: the mean of an epoch.

    Raises:
        ValueError: with what is not finite, so that the task is undone.
    """
    if not math.isfinite(loss):
        raise _error(f"{where}: the loss is {loss}")
    if bad := not_finite(model.state_variables()):
        raise _error(
            f"{where}: {len(bad)} weights, {bad[:3]} among them, are not finite"
        )


def check_scores(task: TaskStep) -> None:
    """Refuses a model whose scores are not finite, at the end of a task.

    It looks at up to 64 images: exemplars, or new ones where there is no
    memory or where outputs of a frozen part have been cached for them.

    Raises:
        ValueError: so that the task is undone.
    """
    check_finite(task.model, "at its end")
    samples = task.samples
    if task.memory and not task.model.network.has_frozen_part:
        samples = task.memory.samples()
    chosen = np.linspace(0, len(samples) - 1, _MOST_IMAGES, dtype=int)
    outputs = task.logits_and_scores(samples, np.unique(chosen))
    if not all(np.isfinite(values).all() for values in outputs):
        raise _error("at its end: logits or scores of images are not finite")


def _error(what: str) -> ValueError:
    return ValueError(
        f"The task is undone, {what}. Model and memory are "
        "what they were before. A lower learning rate, "
        "optimizer.clipnorm=1.0, or images without extreme values may help."
    )
