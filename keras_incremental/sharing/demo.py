"""A task to try sharing on before any new class arrives."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_incremental.scenarios import Task


def hold_out(task: Task, classes: int = 2, seed: int = 0) -> tuple[Task, Task]:
    """Splits a task in two: a base, and held-out classes as a demo task.

    Train the base on the first, and search for the branch point on the second:
    so a deployment can choose it before new classes arrive.

    Args:
        task: The task to hold some classes out of.
        classes: how many.
        seed: draws which.

    Returns:
        `(base, demo)`; the datasets are those of `task`, filtered by label.

    Raises:
        ValueError: unless there are more classes than are held out.

    >>> import keras_incremental as ki
    >>> task = ki.ClassIncrementalScenario.from_arrays(
    ...     *ki.scenarios.load_digits(), classes_per_task=10)[0]
    >>> base, demo = hold_out(task, classes=3)
    >>> len(base.labels), len(demo.labels)
    (7, 3)
    """
    if not 1 <= classes < len(task.labels):
        raise ValueError(
            f"classes={classes} of a task of {len(task.labels)}; expected at "
            "least 1, and fewer than the task has."
        )
    order = np.random.default_rng(seed).permutation(len(task.labels))
    demo = _with_classes(task, sorted(order[:classes]))
    base = _with_classes(task, sorted(order[classes:]))
    demo = dataclasses.replace(demo, index=task.index + 1, seen_test=task.test)
    return base, demo


def _with_classes(task: Task, positions: Sequence[int]) -> Task:
    labels = [task.labels[position] for position in positions]
    test = _filtered(task.test, labels)
    return dataclasses.replace(
        task,
        labels=labels,
        class_names=[task.class_names[position] for position in positions],
        train=_filtered(task.train, labels),
        test=test,
        seen_test=test,
    )


def _filtered(dataset: tf.data.Dataset, labels: list) -> tf.data.Dataset:
    wanted = tf.constant(labels, dataset.element_spec[1].dtype)
    chosen = dataset.filter(
        lambda image, label: tf.reduce_any(tf.equal(label, wanted))
    )
    count = sum(1 for _ in chosen)
    return chosen.apply(tf.data.experimental.assert_cardinality(count))
