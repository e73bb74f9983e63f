"""Learns one task: its phases as one Keras run, all or nothing."""

from keras_incremental.training.backup import Backup
from keras_incremental.training.clock import Clock
from keras_incremental.training.notes import (
    note_on_few_images,
    note_on_known_classes,
)
from keras_incremental.training.task_report import TaskReport
from keras_incremental.training.task_runner import run_task
from keras_incremental.training.validation import (
    ClassCounts,
    ValidationData,
    check_coverage,
)
from keras_incremental.training.worker_consistency import check_same_step

__all__ = [
    "Backup",
    "ClassCounts",
    "Clock",
    "TaskReport",
    "ValidationData",
    "check_coverage",
    "check_same_step",
    "note_on_few_images",
    "note_on_known_classes",
    "run_task",
]
