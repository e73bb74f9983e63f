"""What is recorded of a task while it runs; here, nothing."""

import dataclasses

from keras_incremental.exemplars import ExemplarMemory
from keras_incremental.models import IncrementalClassifier
from keras_incremental.training.task_report import TaskReport


@dataclasses.dataclass
class Progress:
    """How far a task has come.

    Attributes:
        phase: index of the phase.
        epochs: finished epochs of it.
        stopped: whether a callback has ended the phase.
        epochs_before: finished epochs of the phases before.
        factor: The learning-rate factor of the last epoch.
        train_seconds, overhead_seconds: spent on the task so far.
    """

    phase: int = 0
    epochs: int = 0
    stopped: bool = False
    epochs_before: int = 0
    factor: float = 1.0
    train_seconds: float = 0.0
    overhead_seconds: float = 0.0


class Recorder:
    """Is told how far a task has come, and can bring a model back to it.

    This one records nothing, so it has nothing to bring back.
    """

    def begin_task(self, index: int, data: dict) -> Progress:
        """Returns how far an earlier process had come with a task.

        Args:
            index: Position of the task in this run.
            data: what tells its data and options from others'; JSON types.
        """
        return Progress()

    def begin_phase(self, model: IncrementalClassifier) -> None:
        """A phase is about to change the weights."""

    def end_epoch(
        self, model: IncrementalClassifier, progress: Progress
    ) -> None:
        """An epoch has ended, and all callbacks have seen it."""

    def restore_phase_start(self, model: IncrementalClassifier) -> None:
        """Brings the weights to the start of the phase, after growth."""

    def restore_epoch(self, model: IncrementalClassifier) -> None:
        """Brings weights and optimizer to the end of the last epoch."""

    def finish_task(
        self,
        model: IncrementalClassifier,
        memory: ExemplarMemory | None,
        report: TaskReport,
    ) -> None:
        """The task is learned; if this raises, it is undone."""

    def fail_task(self) -> None:
        """The task was undone: the next fit starts it anew."""
