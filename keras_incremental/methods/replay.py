"""One stage of balanced softmax and distillation, with exemplars."""

import dataclasses
from collections.abc import Callable

from keras_incremental.methods.method import Method
from keras_incremental.methods.phase import ClosedFormPhase, Phase
from keras_incremental.methods.schedules import StepDecay
from keras_incremental.methods.task_step import TaskStep
from keras_incremental.methods.warm_start import warm_start
from keras_incremental.methods.weight_aligning import aligning_phases
from keras_incremental.objectives import (
    BalancedSoftmax,
    CrossDistilled,
    Objective,
)


@dataclasses.dataclass(frozen=True)
class Replay(Method):
    """Trains on new data and all exemplars in one stage, balanced by its loss.

    `CE(z + log(n_c / sum n), y)`, with `n_c` the images of class `c` in the
    mixture, plus EEIL's distillation of each old head. The plain logits decide.
    There is no second stage, so a task takes fewer images than EEIL's.

    Source: ours, of balanced softmax (Ren et al., NeurIPS 2020,
    arXiv:2007.10740) and EEIL's distillation (Castro et al., ECCV 2018).

    Args:
        temperature: T of the distillation.
        classification: the objective beside it, with one term.
        align: whether the new classes' weights are aligned at the end, as by
            `WeightAligning`.
        learning_rate_factor: epoch -> factor on the compiled learning rate.
        warm_start: whether a new head starts from a closed form of the features
            instead of at random.
        copies: as for `EEIL`.

    >>> Replay().align
    False
    """

    temperature: float = 2.0
    classification: Objective = dataclasses.field(
        default_factory=BalancedSoftmax
    )
    align: bool = False
    learning_rate_factor: Callable[[int], float] = StepDecay()
    warm_start: bool = False
    copies: int = 0
    needs_memory = True

    def grow(self, task: TaskStep) -> None:
        super().grow(task)
        if self.warm_start:
            warm_start(task)

    def phases(self, task: TaskStep) -> list[Phase | ClosedFormPhase]:
        training = Phase(
            name="training",
            epochs=task.epochs,
            sources=lambda: [task.samples, *task.exemplars()],
            objective=CrossDistilled(
                task.known_classes, self.temperature, self.classification
            ),
            learning_rate_factor=self.learning_rate_factor,
            copies=self.copies,
        )
        aligning = aligning_phases(task) if self.align else []
        return [training, *aligning]
