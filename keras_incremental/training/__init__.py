"""Learns one task: its phases as one Keras run, all or nothing."""

from keras_incremental.training.backup import Backup
from keras_incremental.training.clock import Clock
from keras_incremental.training.task_report import TaskReport
from keras_incremental.training.task_runner import run_task
from keras_incremental.training.worker_consistency import check_same_step

__all__ = [
    "Backup",
    "Clock",
    "TaskReport",
    "check_same_step",
    "run_task",
]
