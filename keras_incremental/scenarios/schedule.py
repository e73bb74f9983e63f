"""Which classes arrive at which step."""

import collections
import dataclasses
import numbers

import numpy as np

from keras_incremental.labels import check_labels
from keras_incremental.scenarios.class_labels import shown


@dataclasses.dataclass(frozen=True)
class ClassSchedule:
    """Order of the classes, and how many arrive at each step.

    What needs no data is checked on construction, so that a mistake shows
    before anything is downloaded or scanned.

    Args:
        classes_per_task: an int, or a list with one int a task.
        class_order: list of all labels in order of arrival; `None` draws
            `np.random.default_rng(seed).permutation(sorted labels)`.
        seed: int >= 0.
        samples_per_class: training images kept of each class, the first in
            data set order; `None` keeps all.

    Raises:
        TypeError: a value of another type.
        ValueError: a number out of range.

    Example:

    >>> schedule = ClassSchedule(classes_per_task=2, class_order=[7, 40, 3])
    >>> schedule.tasks([3, 7, 40])
    [[7, 40], [3]]
    """

    classes_per_task: int | list
    class_order: list | None = None
    seed: int = 0
    samples_per_class: int | None = None

    def __post_init__(self):
        for size in np.atleast_1d(self.classes_per_task):
            _check_int(size, "classes_per_task", minimum=1)
        _check_int(self.seed, "seed", minimum=0)
        if self.samples_per_class is not None:
            _check_int(self.samples_per_class, "samples_per_class", minimum=1)
        if self.class_order is not None:
            order = check_labels(self.class_order, "class_order")
            object.__setattr__(self, "class_order", order.tolist())

    def tasks(self, labels):
        """Returns the labels of each task: a list of lists.

        Args:
            labels: the distinct labels of the data, sorted.

        Raises:
            ValueError: `class_order` is not a permutation of `labels`, or the
                list `classes_per_task` does not add up to their number.
        """
        order = self._order(labels)
        stops = np.cumsum(self._sizes(order))
        return [task.tolist() for task in np.split(order, stops[:-1])]

    def _order(self, labels):
        if self.class_order is None:
            return np.random.default_rng(self.seed).permutation(labels).tolist()
        given = collections.Counter(self.class_order)
        wanted = collections.Counter(labels)
        if given != wanted:
            raise ValueError(
                f"class_order must be a permutation of the {len(labels)} "
                f"labels of the data. Missing: {shown(wanted - given)}; "
                f"unknown, or there twice: {shown(given - wanted)}."
            )
        return self.class_order

    def _sizes(self, order):
        sizes = np.atleast_1d(self.classes_per_task).tolist()
        if np.ndim(self.classes_per_task) == 0:
            whole, rest = divmod(len(order), *sizes)
            return sizes * whole + [rest] * (rest > 0)
        if sum(sizes) != len(order):
            raise ValueError(
                f"classes_per_task={sizes} adds up to {sum(sizes)}, but the "
                f"data has {len(order)} classes. Without a task remain, in "
                f"order of arrival: {shown(order[sum(sizes) :])}."
            )
        return sizes


def _check_int(value, name, minimum):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; expected an int >= {minimum}.")
    if value < minimum:
        raise ValueError(f"{name} is {value}; expected an int >= {minimum}.")
