"""Separated softmax, SS-IL (Ahn et al., ICCV 2021)."""

import dataclasses
from collections.abc import Callable

from keras_incremental.methods.method import Method, check_share
from keras_incremental.methods.phase import Phase
from keras_incremental.methods.schedules import StepDecay
from keras_incremental.methods.task_step import TaskStep
from keras_incremental.objectives import SeparatedSoftmax as Separated


@dataclasses.dataclass(frozen=True)
class SeparatedSoftmax(Method):
    """Trains old and new classes by a softmax of their own; arg-max decides.

    One stage on new data and all exemplars
    (`keras_incremental.objectives.SeparatedSoftmax`), with a task-wise
    distillation.

    Source: SS-IL (Ahn et al., ICCV 2021, arXiv:2003.13947).

    Args:
        temperature: T of the distillation.
        exemplar_share: share of the exemplars in the loss.
        learning_rate_factor: epoch -> factor on the compiled learning rate.

    Raises:
        ValueError: if the share is not between 0 and 1.

    >>> SeparatedSoftmax().exemplar_share
    0.2
    """

    temperature: float = 2.0
    exemplar_share: float = 0.2
    learning_rate_factor: Callable[[int], float] = StepDecay()
    needs_memory = True

    def __post_init__(self):
        check_share("exemplar_share", self.exemplar_share)

    def phases(self, task: TaskStep) -> list[Phase]:
        return [
            Phase(
                name="training",
                epochs=task.epochs,
                sources=lambda: [task.samples, *task.exemplars()],
                objective=Separated(
                    task.known_classes, self.temperature, self.exemplar_share
                ),
                learning_rate_factor=self.learning_rate_factor,
            )
        ]
