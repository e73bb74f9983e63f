"""The lower bound: train on new data, do nothing against forgetting."""

import dataclasses
from collections.abc import Callable

from keras_incremental.methods.method import Method
from keras_incremental.methods.phase import Phase
from keras_incremental.methods.schedules import StepDecay
from keras_incremental.methods.task_step import TaskStep


@dataclasses.dataclass(frozen=True)
class FineTune(Method):
    """Trains backbone and head on the new data alone.

    Exemplars are not rehearsed, though a memory that is passed to the
    callback is kept up to date. Use it as the lower bound of a comparison.

    Args:
        learning_rate_factor: epoch -> factor on the compiled learning rate;
            the same default as `EEIL`.

    >>> FineTune().keeps_all_data
    False
    """

    learning_rate_factor: Callable[[int], float] = StepDecay()

    def phases(self, task: TaskStep) -> list[Phase]:
        return [
            Phase(
                name="training on the new data",
                epochs=task.epochs,
                sources=lambda: [task.samples],
                learning_rate_factor=self.learning_rate_factor,
            )
        ]
