"""Learns one task, all or nothing."""

import keras

from keras_incremental.methods import Method, TaskStep
from keras_incremental.models import FitRequest
from keras_incremental.training.backup import Backup, Progress
from keras_incremental.training.clock import Clock
from keras_incremental.training.finite import check_scores
from keras_incremental.training.notes import count_images, notes_on
from keras_incremental.training.phase_runner import PhaseRunner
from keras_incremental.training.rollback import undone_on_error
from keras_incremental.training.task_report import TaskReport
from keras_incremental.training.validation import ClassCounts, ValidationData
from keras_incremental.training.worker_consistency import check_same_model


def run_task(
    method: Method,
    task: TaskStep,
    request: FitRequest,
    backup: Backup,
    progress: Progress,
    clock: Clock,
    validation: ValidationData,
) -> tuple[keras.callbacks.History, TaskReport]:
    """Grows the model, runs the phases, and updates the memory.

    If anything raises, or the user interrupts, model and memory are what they
    were before.

    Args:
        method: says how the model grows, and which phases there are.
        task: the new data; the model has not grown.
        request: What the user passed to `fit`.
        backup: is told how far the task has come, and that it is finished.
        progress: how far an earlier process has come with it.
        clock: started when the task began.
        validation: that of `fit`; its accuracies are in the report.

    Returns:
        Keras' history of all phases, and the report.
    """
    model, memory = task.model, task.memory
    try:
        with undone_on_error(model, memory):
            method.grow(task)
            check_same_model(model)
            phases = PhaseRunner(task, request, backup, progress, clock)
            history = phases.run(method.phases(task))
            _update_memory(task)
            method.finish(task)
            check_scores(task)
            with clock.apart():
                after = validation.count_hits(model)
            report = _report(
                task, phases.epochs, clock, validation.before, after
            )
            backup.finish_task(model, memory, report)
    except BaseException:
        backup.fail_task()
        raise
    return history, report


def _update_memory(task: TaskStep) -> None:
    if task.memory is not None:
        task.memory.update(
            task.samples,
            task.model.extract_features,
            task.features(task.samples),
            known=task.model.labels,
        )


def _report(
    task: TaskStep,
    epochs: int,
    clock: Clock,
    before: ClassCounts,
    after: ClassCounts,
) -> TaskReport:
    training, overhead = clock.read()
    name_of = dict(zip(task.model.labels, task.model.class_names, strict=True))

    def by_name(values: dict) -> dict:
        return {name_of[label]: value for label, value in values.items()}

    return TaskReport(
        new_labels=list(task.new_labels),
        epochs=epochs,
        exemplars=0 if task.memory is None else len(task.memory),
        train_seconds=training,
        overhead_seconds=overhead,
        details=dict(task.details),
        new_names=list(task.new_names),
        images_by_class=by_name(count_images(task.samples.labels)),
        notes=notes_on(task, after),
        validation_images_by_class=by_name(after.images) or None,
        accuracy_by_class_before=by_name(before.accuracy()) or None,
        accuracy_by_class=by_name(after.accuracy()) or None,
    )
