"""One number for a whole sequence of tasks."""

import numpy as np
from numpy.typing import ArrayLike


def average_incremental_accuracy(accuracies: ArrayLike) -> float:
    """Mean of the accuracy after each task, the first included.

    `A = mean_t a_t`, `t = 0..T-1`, where `a_t` is the accuracy over the test
    images of all classes seen after task `t`. Rebuffi et al. 2017 (iCaRL,
    arXiv:1611.07725), section 4.

    Args:
        accuracies: `a_t` in [0, 1], shape `(tasks,)`.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: If there is no task, or a value is not in [0, 1].

    Example:

    >>> average_incremental_accuracy([1.0, 0.5, 0.0])
    0.5
    """
    return float(np.mean(_checked_accuracies(accuracies)))


def average_incremental_accuracy_after_first(accuracies: ArrayLike) -> float:
    """Mean of the accuracy after each task, without the first.

    `A = mean_t a_t`, `t = 1..T-1`, as the tables of EEIL (Castro et al. 2018,
    arXiv:1807.09536) report it: the first task is not incremental.

    Args:
        accuracies: `a_t` in [0, 1], shape `(tasks,)`.

    Returns:
        A float in [0, 1], or NaN (`null` in JSON) if there is only one task.

    Raises:
        ValueError: If there is no task, or a value is not in [0, 1].

    Example:

    >>> average_incremental_accuracy_after_first([1.0, 0.5, 0.0])
    0.25
    """
    later = _checked_accuracies(accuracies)[1:]
    return float(np.mean(later)) if len(later) else float("nan")


def forgetting(accuracy_matrix: ArrayLike) -> float:
    """Mean over the old tasks of best earlier minus final accuracy.

    `F = mean_i (max_{t < T-1} R[t, i] - R[T-1, i])`, `i = 0..T-2`. Chaudhry
    et al. 2018 (arXiv:1801.10112), Eq. 3. The newest task is not counted: it
    has had no time to be forgotten. Negative if old tasks became better.

    Args:
        accuracy_matrix: `R`, shape `(tasks, tasks)`, in [0, 1]; row `t` is
            after task `t`. Array, or nested lists. What is above the diagonal
            (NaN or None: tasks not yet learned) is not read.

    Returns:
        A float in [-1, 1]; 0.0 if there is only one task.

    Raises:
        ValueError: If the matrix is not square, is empty, or has a value not
            in [0, 1] on or below the diagonal.

    Example:

    >>> round(forgetting([[0.9, None], [0.6, 0.8]]), 3)
    0.3
    """
    values = _checked_matrix(accuracy_matrix)
    final, earlier = values[-1, :-1], values[:-1, :-1]
    if not len(final):
        return 0.0
    return float(np.mean(np.nanmax(earlier, axis=0) - final))


def backward_transfer(accuracy_matrix: ArrayLike) -> float:
    """Mean over the old tasks of final minus first accuracy.

    `B = mean_i (R[T-1, i] - R[i, i])`, `i = 0..T-2`. Lopez-Paz and Ranzato
    2017 (arXiv:1706.08840), section 2, "BWT". Negative if old tasks became
    worse. It is not minus `forgetting`, which starts from the best accuracy.

    Args:
        accuracy_matrix: As of `forgetting`.

    Returns:
        A float in [-1, 1]; 0.0 if there is only one task.

    Raises:
        ValueError: As `forgetting`.

    Example:

    >>> round(backward_transfer([[0.9, None], [0.6, 0.8]]), 3)
    -0.3
    """
    values = _checked_matrix(accuracy_matrix)
    final, first = values[-1, :-1], np.diagonal(values)[:-1]
    return float(np.mean(final - first)) if len(final) else 0.0


def _checked_accuracies(accuracies):
    """`accuracies` as a float64 vector."""
    values = np.asarray(accuracies, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(
            f"accuracies has shape {values.shape}, expected (tasks,): the "
            "accuracy over all classes seen, once after every task."
        )
    check_fractions(values, "accuracies")
    return values


def _checked_matrix(accuracy_matrix):
    """`accuracy_matrix` as float64, NaN above the diagonal."""
    values = np.array(accuracy_matrix, dtype=np.float64)
    if values.ndim != 2 or len(set(values.shape)) > 1 or not values.size:
        raise ValueError(
            f"accuracy_matrix has shape {values.shape}, expected "
            "(tasks, tasks) with at least one task, as AccuracyMatrix.values."
        )
    check_fractions(
        values[np.tril_indices(len(values))],
        "accuracy_matrix, on and below the diagonal,",
    )
    values[np.triu_indices(len(values), k=1)] = np.nan
    return values


def check_fractions(values, name):
    """Raises a `ValueError` for a value not in [0, 1]."""
    wrong = values[~((values >= 0) & (values <= 1))]
    if len(wrong):
        raise ValueError(
            f"{name} must be in [0, 1], got {wrong[0]}. Divide percentages "
            "by 100; NaN means a result that was not recorded."
        )
