"""The upper bound: at every task, train on all data so far."""

import dataclasses
import logging
from collections.abc import Callable

from keras_incremental.methods.method import Method
from keras_incremental.methods.phase import Phase
from keras_incremental.methods.schedules import StepDecay
from keras_incremental.methods.task_step import TaskStep

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Joint(Method):
    """Trains on all data of all tasks so far, without a memory limit.

    The network goes on from its present weights. Datasets of earlier tasks
    are kept for as long as the callback lives. Use it as the upper bound of a
    comparison.

    Args:
        learning_rate_factor: epoch -> factor on the compiled learning rate;
            the same default as `EEIL`.

    >>> Joint().keeps_all_data
    True
    """

    learning_rate_factor: Callable[[int], float] = StepDecay()
    keeps_all_data = True

    def phases(self, task: TaskStep) -> list[Phase]:
        if task.known_classes and not task.past:
            _logger.warning(
                "Joint has no data of the %d classes learned before: it was "
                "with another callback, or in another process.",
                task.known_classes,
            )
        return [
            Phase(
                name="training on all data",
                epochs=task.epochs,
                sources=lambda: [*task.past, task.samples],
                learning_rate_factor=self.learning_rate_factor,
            )
        ]
