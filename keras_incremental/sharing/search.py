"""Trains tasks at several branch points, to choose one."""

import copy
import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from keras_incremental import cost, metrics
from keras_incremental.callbacks import IncrementalCallback
from keras_incremental.exemplars import ExemplarMemory
from keras_incremental.labels import check_labels
from keras_incremental.methods import PartialSharing
from keras_incremental.models import IncrementalClassifier
from keras_incremental.networks import SingleNetwork
from keras_incremental.predictions import predict
from keras_incremental.scenarios import Task
from keras_incremental.sharing.curve import SharingCurve, SharingPoint

DEFAULT_POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The branch points that `search` tries, as fractions of the layers."""
_BATCH = 256


def fit_tasks(
    model: IncrementalClassifier,
    tasks: Sequence,
    incremental: IncrementalCallback,
    *,
    epochs: int,
    batch_size: int,
    verbose: int | str,
) -> list:
    """Adds tasks to a model, one `fit` each; returns the callback's reports.

    Args:
        model: `IncrementalClassifier` with a branch point.
        tasks: sequence of `Task`, in order.
        incremental: `IncrementalCallback` of all of them.
        epochs: number of epochs of each task.
        batch_size: number of images in a training batch.
        verbose: verbosity of `fit`.
    """
    for task in tasks:
        model.fit(
            task.train.batch(batch_size),
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=[incremental],
        )
    return incremental.reports


def search(
    model: IncrementalClassifier,
    tasks: Task | Sequence[Task],
    points: Sequence[str | float] = DEFAULT_POINTS,
    tolerance: float = 0.01,
    *,
    epochs: int = 20,
    batch_size: int = 128,
    method: PartialSharing | None = None,
    memory: ExemplarMemory | None = None,
    augment: Callable | None = None,
    seed: int = 0,
    verbose: int | str = "auto",
    train: Callable = fit_tasks,
) -> SharingCurve:
    """Trains the same tasks at several branch points.

    Every point starts from a copy of `model`, and adds the tasks one after
    another by `method`. Without sharing (point 0, always included) each task
    has a whole network: the accuracy to compare with. To choose a branch
    point before new classes arrive, hold some classes of the base data out
    (`hold_out`), train the base on the others, and search on those held out.

    Source: Sarwar, Ankit and Roy, IEEE Access 8, 2020 (arXiv:1712.02719).

    Args:
        model: a compiled classifier that knows the base classes and has no
            branches; it is not changed.
        tasks: one task or several, of new classes, in order; the last one's
            `seen_test` is what accuracies are measured on.
        points: branch points: layer names or fractions of the layers. Points
            at the same layer are tried once.
        tolerance: accuracy, in [0, 1], that may be lost to sharing.
        epochs: Epochs of each task.
        batch_size: Images per training batch.
        method: by default `PartialSharing()`. Its width does not matter to a
            branch that is a classifier alone.
        memory: exemplars of the base classes, for calibration; each point uses
            a copy. `None`: no calibration.
        augment: As for `IncrementalCallback`.
        seed: As for `IncrementalCallback`.
        verbose: As in Keras' `fit`.
        train: `function(model, tasks, incremental, epochs=, batch_size=,
            verbose=)` that adds the tasks to the model of one point and
            returns the report of each; by default `fit_tasks`.

    Returns:
        a `SharingCurve`: `print` it, `save` it, `plot` it; `chosen` is the
        deepest point within the tolerance.

    Raises:
        TypeError, ValueError: at once, for a model without classes or with
            branches, for tasks or a memory that do not go with it, for points
            that are not legal or leave no layer to thin.
    """
    tasks = [tasks] if isinstance(tasks, Task) else list(tasks)
    points = [points] if isinstance(points, (str, float)) else points
    method = PartialSharing() if method is None else method
    _check(model)
    trials = _trials(model, points, method)
    for candidate, method_at in trials:
        method_at.check(candidate, memory)
    _check_classes(model, tasks)
    _check_memory(model, tasks, memory)
    class_names, found = {}, []
    for task in tasks:
        class_names |= dict(zip(task.labels, task.class_names, strict=True))
    for candidate, method_at in trials:
        incremental = IncrementalCallback(
            copy.copy(memory),  # what it stores is never changed
            method_at,
            class_names=class_names,
            augment=augment,
            seed=seed,
        )
        started = time.perf_counter()
        reports = train(
            candidate,
            tasks,
            incremental,
            epochs=epochs,
            batch_size=batch_size,
            verbose=verbose,
        )
        seconds = time.perf_counter() - started
        cost_report = _cost(candidate, batch_size, augment, method)
        found.append(_point(candidate, tasks, reports, seconds, cost_report))
    return SharingCurve(tuple(found), tolerance)


def _point(model, tasks, reports, seconds, cost_report) -> SharingPoint:
    """What a trained candidate shows, on all test images and the new tasks'."""
    all_tasks = predict(model, tasks[-1].seen_test)
    new = all_tasks.of_tasks_from(len(model.heads) - len(tasks))
    return SharingPoint(
        branch_at=model.branch_at,
        layers=model.network.shared_layers,
        task_aware_accuracy=metrics.accuracy(new.task_aware_classes, new.units),
        uncalibrated_accuracy=new.uncalibrated_accuracy,
        accuracy=new.accuracy,
        uncalibrated_accuracy_of_all=all_tasks.uncalibrated_accuracy,
        accuracy_of_all=all_tasks.accuracy,
        calibrated=all(r.details["calibrated"] for r in reports),
        similarity=tuple(r.details["similarity"] for r in reports),
        seconds_per_epoch=float(
            np.mean([r.train_seconds / r.epochs for r in reports])
        ),
        seconds=seconds,
        cost=cost_report,
    )


def _trials(
    model, points, method: PartialSharing
) -> list[tuple[IncrementalClassifier, PartialSharing]]:
    """A copy of the model and its method for each point, the deepest last."""
    by_place = {}
    for point in (0.0, *points):
        candidate = model.with_branch_at(point)
        by_place.setdefault(candidate.branch_at, candidate)
    candidates = sorted(
        by_place.values(), key=lambda item: len(item.network.trunk.layers)
    )
    unthinned = dataclasses.replace(method, width=1.0)  # for a bare classifier
    return [
        (candidate, method if candidate.network.tail.weights else unthinned)
        for candidate in candidates
    ]


def _cost(model, batch_size, augment, method) -> cost.CostReport:
    return cost.report(
        model,
        batch_size=batch_size,
        measure=False,
        trunk_cached=augment is None or method.copies > 0,
    )


def _check(model) -> None:
    is_base = isinstance(model.network, SingleNetwork)
    if not model.num_classes or not is_base or not model.compiled:
        raise ValueError(
            "search needs a compiled model that knows the base classes and "
            f"has no branches; this one knows {model.num_classes} classes, "
            f"has {'no' if is_base else 'some'} branches, and is "
            f"{'' if model.compiled else 'not '}compiled."
        )


def _check_classes(model, tasks: Sequence[Task]) -> None:
    """The tasks bring new classes; the test images are of known ones."""
    known = list(model.labels)
    for task in tasks:
        repeated = [label for label in task.labels if label in known]
        if repeated:
            raise ValueError(
                f"Task {task.index} brings the classes {repeated[:10]}, which "
                "the model or an earlier task knows already; expected tasks "
                "of new classes only."
            )
        known += task.labels
    tested = _distinct_labels(tasks[-1].seen_test)
    new = known[model.num_classes :]
    strange = sorted(tested - set(known))
    missing = [label for label in new if label not in tested]
    if strange or missing:
        raise ValueError(
            "seen_test of the last task does not go with the tasks: it holds "
            f"classes that were never taught, {strange[:10]}, and lacks "
            f"classes of the tasks, {missing[:10]}. Pass all tasks that follow "
            "those of the model, in order."
        )


def _check_memory(model, tasks: Sequence[Task], memory) -> None:
    """The memory holds the base, and has room for the tasks."""
    if memory is None:
        return
    missing = [label for label in model.labels if label not in memory]
    if missing:
        raise ValueError(
            f"The memory has no exemplar of the classes {missing[:10]}, which "
            "the model knows. Pass the memory that was filled with them, or "
            "None to leave calibration out."
        )
    memory.check_room(label for task in tasks for label in task.labels)


def _distinct_labels(dataset) -> set:
    labels = [batch.numpy() for _, batch in dataset.batch(_BATCH)]
    return set(check_labels(np.concatenate(labels)).tolist())
