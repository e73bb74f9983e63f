"""Which classes arrive at which step."""

import dataclasses
import operator

import numpy as np

from keras_incremental.scenarios.class_labels import shown


@dataclasses.dataclass(frozen=True, kw_only=True)
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
        ValueError: a number out of range, or a label twice in `class_order`.

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
        _check_counts(self.classes_per_task)
        _check_int(self.seed, "seed", minimum=0)
        if self.samples_per_class is not None:
            _check_int(self.samples_per_class, "samples_per_class", minimum=1)
        if self.class_order is not None:
            order = _python_values(self.class_order)
            object.__setattr__(self, "class_order", order)

    def tasks(self, labels):
        """Returns the labels of each task: a list of lists.

        Args:
            labels: the distinct labels of the data, sorted.

        Raises:
            ValueError: `class_order` is not a permutation of `labels`, or the
                list `classes_per_task` does not add up to their number.
        """
        order = self._order(labels)
        stops = np.cumsum(self._sizes(order)).tolist()
        starts = [0, *stops[:-1]]
        return [
            order[start:stop] for start, stop in zip(starts, stops, strict=True)
        ]

    def _order(self, labels):
        if self.class_order is None:
            return np.random.default_rng(self.seed).permutation(labels).tolist()
        missing = set(labels) - set(self.class_order)
        unknown = set(self.class_order) - set(labels)
        if missing or unknown:
            raise ValueError(
                f"class_order must be a permutation of the {len(labels)} "
                f"labels of the data. Missing: {shown(missing)}; unknown: "
                f"{shown(unknown)}."
            )
        return self.class_order

    def _sizes(self, order):
        if isinstance(self.classes_per_task, (list, tuple, np.ndarray)):
            sizes = [operator.index(size) for size in self.classes_per_task]
            _check_sum(sizes, order)
            return sizes
        size = operator.index(self.classes_per_task)
        whole, rest = divmod(len(order), size)
        return [size] * whole + [rest] * (rest > 0)


def name_classes(order, class_names, default_names):
    """Maps each label to its name, in order of arrival.

    Args:
        order: labels in order of arrival.
        class_names: a dict from label to name, a list indexed by integer
            label, or `None`.
        default_names: dict used where `class_names` is `None`; a label it
            does not hold is named by its own text.

    Returns:
        Dict from label to `str`.

    Raises:
        TypeError: `class_names` is neither, or a name is not text.
        ValueError: a label has no name.
    """
    if class_names is None:
        return {label: default_names.get(label, str(label)) for label in order}
    if isinstance(class_names, (list, tuple, np.ndarray)):
        class_names = dict(enumerate(class_names))
    if not isinstance(class_names, dict):
        raise TypeError(
            f"class_names={class_names!r} is a {type(class_names).__name__}; "
            "expected a dict from label to name or a list indexed by label."
        )
    missing = set(order) - set(class_names)
    if missing:
        raise ValueError(
            f"class_names has {len(class_names)} names but none for the "
            f"labels {shown(missing)}. Pass a dict with one name for each of "
            f"the {len(order)} labels."
        )
    names = {label: class_names[label] for label in order}
    for label, name in names.items():
        if not isinstance(name, str):
            raise TypeError(
                f"class_names gives {name!r} for the label {label!r}; "
                "expected a string."
            )
    return {label: str(name) for label, name in names.items()}


def _check_counts(classes_per_task):
    if not isinstance(classes_per_task, (list, tuple, np.ndarray)):
        _check_int(classes_per_task, "classes_per_task", minimum=1)
        return
    if len(classes_per_task) == 0:
        raise ValueError(
            "classes_per_task is an empty list; expected one int a task, for "
            "example [50, 10, 10, 10, 10, 10]."
        )
    for position, size in enumerate(classes_per_task):
        _check_int(size, f"classes_per_task[{position}]", minimum=1)


def _check_sum(sizes, order):
    total = sum(sizes)
    if total > len(order):
        raise ValueError(
            f"classes_per_task={sizes} adds up to {total}, but the data has "
            f"{len(order)} classes. Lower it by {total - len(order)}."
        )
    if total < len(order):
        raise ValueError(
            f"classes_per_task={sizes} adds up to {total}, but the data has "
            f"{len(order)} classes; without a task remain, in order of "
            f"arrival: {order[total:]}. Add tasks for them or leave their "
            "images out."
        )


def _check_int(value, name, minimum):
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(
            f"{name}={value!r} is a {type(value).__name__}; expected an int "
            f">= {minimum}."
        )
    if value < minimum:
        raise ValueError(f"{name}={value}; expected an int >= {minimum}.")


def _python_values(class_order):
    if isinstance(class_order, (str, bytes)) or not hasattr(
        class_order, "__iter__"
    ):
        raise TypeError(
            f"class_order={class_order!r}; expected a list of labels, or None "
            "for an order drawn by seed. For label order pass the sorted "
            "labels."
        )
    values = [getattr(v, "item", lambda v=v: v)() for v in class_order]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise TypeError(
                f"class_order holds {value!r}, a {type(value).__name__}; "
                "expected labels of the data, ints or strings."
            )
    twice = {value for value in values if values.count(value) > 1}
    if twice:
        raise ValueError(
            f"class_order names a label more than once: {shown(twice)}."
        )
    return values
