"""Learning without forgetting for many classes, iCaRL's baseline."""

import dataclasses
from collections.abc import Callable

from keras_incremental.methods.icarl import ICaRL
from keras_incremental.methods.method import Method
from keras_incremental.methods.phase import Phase
from keras_incremental.methods.schedules import StepDecay
from keras_incremental.methods.task_step import TaskStep


@dataclasses.dataclass(frozen=True)
class LwFMC(Method):
    """iCaRL's training without exemplars; the highest sigmoid decides.

    A memory that is passed to the callback is kept up to date, but its images
    are not used.

    Source: "LwF.MC" of Rebuffi et al., CVPR 2017 (arXiv:1611.07725), section
    4.1, after Li and Hoiem, ECCV 2016 (arXiv:1606.09282).

    Args:
        total_classes, learning_rate_factor: as for `ICaRL`.

    Raises:
        ValueError: for `total_classes` below 1.

    >>> LwFMC().needs_memory
    False
    """

    total_classes: int | None = None
    learning_rate_factor: Callable[[int], float] = StepDecay()

    def __post_init__(self):
        self._hybrid()

    def _hybrid(self) -> ICaRL:
        """Returns the method that differs by its exemplars alone."""
        return ICaRL("argmax", self.total_classes, self.learning_rate_factor)

    def phases(self, task: TaskStep) -> list[Phase]:
        return [
            dataclasses.replace(phase, sources=lambda: [task.samples])
            for phase in self._hybrid().phases(task)
        ]
