"""End-to-End Incremental Learning (Castro et al., ECCV 2018)."""

import dataclasses
import logging
from collections.abc import Callable

from keras_incremental.graphs import check_cloneable
from keras_incremental.methods.method import Method
from keras_incremental.methods.phase import Phase, no_noise
from keras_incremental.methods.schedules import GradientNoise, StepDecay
from keras_incremental.methods.task_step import TaskStep
from keras_incremental.objectives import (
    CrossDistilled,
    CrossEntropy,
    Objective,
)

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EEIL(Method):
    """End-to-End Incremental Learning: exemplars, distillation, balance.

    First step: plain training. Later steps, in two stages:

    1. on all new data and all exemplars, cross-entropy over all classes plus
       a distillation term for every **old** head; teacher = the network
       before the step;
    2. balanced fine-tuning on the same number of images per class, with a
       distillation term for **every** head, the new one included; teacher =
       the network at the end of stage 1.

    Nothing is frozen, and momentum starts anew in each stage. Without a
    memory, or while the memory lacks one of the old classes, the second stage
    is left out. If the optimizer was compiled with a `LearningRateSchedule`, it
    starts anew in each stage, and the factors below do not apply.

    A step that brings more data of known classes and no new
    class distils all heads in both stages.

    Source: Castro et al., ECCV 2018 (arXiv:1807.09536), sections 3 and 5.1.

    Args:
        finetune_epochs: epochs of the second stage; 0 leaves it out (30 in
            section 5.1).
        temperature: T of the distillation (2, section 3.1).
        distillation: `False` leaves the distillation terms out.
        learning_rate_factor: epoch of a stage -> factor on the compiled
            learning rate (divided by 10 every 10 epochs, section 5.1).
        finetune_learning_rate: the second stage's first learning rate, as a
            fraction of the compiled one (0.1: the paper's 0.01 after 0.1).
        gradient_noise: a `GradientNoise`, or `None`. The paper uses
            `GradientNoise()`; the default departs from it, because at small
            batches and small networks the noise outweighs the gradient.
        classification: the objective beside the distillation, with one term;
            `CrossEntropy()` is the paper's.

    Raises:
        ValueError: for a value out of range.

    >>> EEIL(finetune_epochs=15).temperature
    2.0
    """

    finetune_epochs: int = 30
    temperature: float = 2.0
    distillation: bool = True
    learning_rate_factor: Callable[[int], float] = StepDecay()
    finetune_learning_rate: float = 0.1
    gradient_noise: GradientNoise | None = None
    classification: Objective = CrossEntropy()
    needs_memory = True

    def __post_init__(self):
        epochs = self.finetune_epochs
        if isinstance(epochs, bool) or int(epochs) != epochs or epochs < 0:
            raise ValueError(
                f"finetune_epochs={epochs!r}; expected an integer >= 0."
            )
        if self.temperature <= 0 or self.finetune_learning_rate <= 0:
            raise ValueError(
                f"temperature={self.temperature} and finetune_learning_rate="
                f"{self.finetune_learning_rate}; expected both above 0."
            )

    def check(self, model, memory):
        super().check(model, memory)
        if self.distillation:  # the teacher is a clone
            check_cloneable(model.backbone)

    def phases(self, task: TaskStep) -> list[Phase]:
        phases = [
            Phase(
                name="training",
                epochs=task.epochs,
                sources=lambda: [task.samples, *task.exemplars()],
                objective=self._objective(task.known_classes),
                learning_rate_factor=self.learning_rate_factor,
                noise_stddev=self._noise(task, epochs_before=0),
            )
        ]
        if self._can_balance(task):
            phases.append(self._balanced_fine_tuning(task))
        return phases

    def _balanced_fine_tuning(self, task: TaskStep) -> Phase:
        return Phase(
            name="balanced fine-tuning",
            epochs=self.finetune_epochs,
            sources=lambda: [task.balanced()],
            objective=self._objective(task.model.num_classes),
            learning_rate_factor=lambda epoch: (
                self.finetune_learning_rate * self.learning_rate_factor(epoch)
            ),
            noise_stddev=self._noise(task, epochs_before=task.epochs),
        )

    def _objective(self, distilled_units: int) -> Objective:
        if not self.distillation:
            return self.classification
        return CrossDistilled(
            distilled_units, self.temperature, self.classification
        )

    def _noise(self, task, epochs_before: int) -> Callable[[int], float]:
        noise = self.gradient_noise
        if noise is None:
            return no_noise
        return lambda epoch: noise.stddev(
            epochs_before + epoch, task.batch_size
        )

    def _can_balance(self, task: TaskStep) -> bool:
        if not (task.known_classes and self.finetune_epochs):
            return False
        if task.memory is None:
            return False
        old = task.model.labels[: task.known_classes]
        missing = task.memory.labels_without_exemplars(old)
        if missing:
            _logger.warning(
                "Balanced fine-tuning is left out: the memory has no exemplar "
                "of the known classes %s.",
                missing[:10],
            )
        return not missing
