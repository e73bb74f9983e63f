"""Accuracy of every task after every task."""

from collections.abc import Sequence

import numpy as np

from keras_incremental.metrics.incremental import check_fractions


class AccuracyMatrix:
    """Owns the results of a run: accuracy on task `i` after task `t`.

    `R[t, i]`, `i <= t`, is the accuracy on the test images of task `i` when
    the tasks `0..t` have been learned (Lopez-Paz and Ranzato 2017,
    arXiv:1706.08840, section 2, without the entries above the diagonal:
    a class-incremental model has no output for a class it has not met).

    Example:

    >>> matrix = AccuracyMatrix()
    >>> matrix.record([0.9])
    >>> matrix.record([0.6, 0.8])
    >>> matrix.to_list()
    [[0.9, None], [0.6, 0.8]]
    """

    def __init__(self):
        self._rows = []

    def record(self, per_task_accuracy: Sequence[float]) -> None:
        """Appends the row of the task just learned.

        Args:
            per_task_accuracy: Accuracies in [0, 1], shape `(t + 1,)` after
                task `t`, in the order the tasks were learned.

        Raises:
            ValueError: If the row has another length, or a value is not in
                [0, 1].
        """
        row = np.array(per_task_accuracy, dtype=np.float64)
        task = len(self._rows)
        if row.shape != (task + 1,):
            raise ValueError(
                f"per_task_accuracy has shape {row.shape}, expected "
                f"{(task + 1,)}: after task {task}, one accuracy for each of "
                f"the tasks 0..{task}. Record once after every task."
            )
        check_fractions(row, "per_task_accuracy")
        self._rows.append(row)

    @property
    def values(self) -> np.ndarray:
        """Float64 array `(tasks, tasks)`, NaN above the diagonal; a copy."""
        values = np.array(self.to_list(), dtype=np.float64)
        return values.reshape(2 * [len(self._rows)])

    def to_list(self) -> list[list[float | None]]:
        """Nested lists for JSON, `None` above the diagonal."""
        tasks = len(self._rows)
        return [
            row.tolist() + [None] * (tasks - len(row)) for row in self._rows
        ]
