"""Metrics of one evaluation: predictions against true classes.

A class is named by its *unit*, the index of its logit: an integer in
`[0, num_classes)` in order of arrival.
"""

import numpy as np
from numpy.typing import ArrayLike


def accuracy(predictions: ArrayLike, units: ArrayLike) -> float:
    """Share of the samples whose predicted unit is the true one.

    `mean_n [predictions_n == units_n]`, over all samples of all classes: with
    tasks of unequal size it is not the mean of `per_task_accuracy`.

    Args:
        predictions: Predicted units, integers, shape `(samples,)`.
        units: True units, integers, shape `(samples,)`.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: If the shapes differ, there is no sample, or the values
            are not integers.

    Example:

    >>> accuracy([0, 1, 1, 2], [0, 1, 2, 2])
    0.75
    """
    predictions, units = _checked_pair(predictions, units)
    return float(np.mean(predictions == units))


def per_task_accuracy(
    predictions: ArrayLike, units: ArrayLike, task_of_unit: ArrayLike
) -> np.ndarray:
    """Accuracy on the samples of each task, all classes seen competing.

    Args:
        predictions: Predicted units, integers, shape `(samples,)`.
        units: True units, integers, shape `(samples,)`.
        task_of_unit: The task, from 0, each unit was learned in, integers,
            shape `(num_classes,)`.

    Returns:
        Float64 array `(tasks,)` in [0, 1]; NaN for a task without samples.

    Raises:
        ValueError: As `accuracy`, or if a true unit is not in
            `task_of_unit`.

    Example:

    >>> per_task_accuracy([0, 0, 2, 3], [0, 1, 2, 3], [0, 0, 1, 1]).tolist()
    [0.5, 1.0]
    """
    predictions, units = _checked_pair(predictions, units)
    task_of_unit = _integers(task_of_unit, "task_of_unit")
    _check_range(units, len(task_of_unit), "units")
    tasks = task_of_unit[units]
    num_tasks = int(np.max(task_of_unit)) + 1
    samples = np.bincount(tasks, minlength=num_tasks)
    hits = np.bincount(tasks[predictions == units], minlength=num_tasks)
    return np.where(samples > 0, hits / np.maximum(samples, 1), np.nan)


def task_aware_predictions(
    logits: ArrayLike, units: ArrayLike, task_of_unit: ArrayLike
) -> np.ndarray:
    """The best unit among those of the sample's own task.

    Their accuracy is the task-aware accuracy ("task-incremental" in other
    texts): the task is known, so classes of other tasks do not compete.

    Args:
        logits: Scores, shape `(samples, num_classes)`.
        units: True units, integers, shape `(samples,)`.
        task_of_unit: The task each unit was learned in, integers, shape
            `(num_classes,)`.

    Returns:
        Int64 array `(samples,)`.

    Raises:
        ValueError: If a shape does not fit, or a unit has no column.

    Example:

    >>> logits = [[9.0, 1.0, 2.0, 3.0], [9.0, 1.0, 2.0, 3.0]]
    >>> task_aware_predictions(logits, [1, 2], [0, 0, 1, 1]).tolist()
    [0, 3]
    """
    logits, units = np.asarray(logits), _integers(units, "units")
    task_of_unit = _integers(task_of_unit, "task_of_unit")
    if logits.shape != (len(units), len(task_of_unit)):
        raise ValueError(
            f"logits has shape {logits.shape}, expected {len(units)} samples "
            f"by {len(task_of_unit)} classes, as units and task_of_unit have."
        )
    _check_range(units, len(task_of_unit), "units")
    competes = task_of_unit == task_of_unit[units][:, np.newaxis]
    return np.where(competes, logits, -np.inf).argmax(axis=1)


def top_k_accuracy(logits: ArrayLike, units: ArrayLike, k: int = 5) -> float:
    """Share of the samples whose true unit is among the `k` best.

    `mean_n [#{c : not logits_nc < logits_n,units_n} <= k]`. Ties are broken
    against the true unit, so a network that answers the same for every class
    (or NaN) scores 0, not 1 as `tf.math.in_top_k` has it. With no more than
    `k` classes the result is 1.0.

    Args:
        logits: Scores, shape `(samples, num_classes)`.
        units: True units, integers, shape `(samples,)`.
        k: Number of guesses, at least 1.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: If a shape does not fit, there is no sample, a unit has
            no column in `logits`, or `k` is not a positive integer.

    Example:

    >>> top_k_accuracy([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], [1, 2], k=2)
    0.5
    """
    logits, units = np.asarray(logits), _integers(units, "units")
    if logits.ndim != 2 or len(logits) != len(units):
        raise ValueError(
            f"logits has shape {logits.shape} and units {units.shape}, "
            "expected (samples, num_classes) and (samples,)."
        )
    if not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k={k!r} must be an integer of at least 1.")
    _check_range(units, logits.shape[1], "units")
    true_logits = np.take_along_axis(logits, units[:, np.newaxis], axis=1)
    rank = logits.shape[1] - np.sum(logits < true_logits, axis=1)
    return float(np.mean(rank <= k))


def confusion_matrix(
    units: ArrayLike, predictions: ArrayLike, num_classes: int
) -> np.ndarray:
    """Counts of samples by true unit (rows) and predicted unit (columns).

    Args:
        units: True units, integers, shape `(samples,)`.
        predictions: Predicted units, integers, shape `(samples,)`.
        num_classes: Number of classes seen so far.

    Returns:
        Int64 array `(num_classes, num_classes)`; it sums to `samples`.

    Raises:
        ValueError: As `accuracy`, or if a unit is not in
            `[0, num_classes)`.

    Example:

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], num_classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    predictions, units = _checked_pair(predictions, units)
    _check_range(units, num_classes, "units")
    _check_range(predictions, num_classes, "predictions")
    cells = units * num_classes + predictions
    counts = np.bincount(cells, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def _checked_pair(predictions, units):
    predictions = _integers(predictions, "predictions")
    units = _integers(units, "units")
    if len(predictions) != len(units):
        raise ValueError(
            f"{len(predictions)} predictions for {len(units)} units, "
            "expected one for each sample."
        )
    return predictions, units


def _integers(values, name):
    """`values` as a vector of int64, not empty."""
    values = np.asarray(values)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "iu":
        raise ValueError(
            f"{name} has shape {values.shape} and dtype {values.dtype}, "
            "expected one integer for each entry and at least one entry: "
            "units, which count the classes in order of arrival, not labels. "
            "Take logits.argmax(axis=1) for the predicted units."
        )
    return values.astype(np.int64)


def _check_range(units, num_classes, name):
    wrong = units[(units < 0) | (units >= num_classes)]
    if len(wrong):
        raise ValueError(
            f"{name} contains {wrong[0]}, expected integers in "
            f"[0, {num_classes}) for {num_classes} classes. Leave out the "
            "samples of classes not seen yet."
        )
