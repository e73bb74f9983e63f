"""End-to-End Incremental Learning (Castro et al., ECCV 2018)."""

import dataclasses
import logging
from collections.abc import Callable

from keras_incremental.graphs import check_cloneable
from keras_incremental.methods.method import Method, check_count
from keras_incremental.methods.phase import Phase, no_noise
from keras_incremental.methods.schedules import GradientNoise, StepDecay
from keras_incremental.methods.task_step import TaskStep
from keras_incremental.methods.warm_start import warm_start
from keras_incremental.objectives import (
    CrossDistilled,
    CrossEntropy,
    Objective,
)

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EEIL(Method):
    """End-to-End Incremental Learning: exemplars, distillation, balance.

    First step: cross-entropy alone. Later steps, in two stages:

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

    Source: Castro et al., ECCV 2018 (arXiv:1807.09536), sections 3 and 5.1. The
    authors' code departs from it: momentum is 0 again after each epoch, the
    first stage's teacher normalises by the statistics of each batch, and the
    weight decay of a kernel is multiplied by its squared norm, surely a slip.

    Args:
        finetune_epochs: epochs of the second stage; 0 leaves it out (30 in
            section 5.1).
        finetune_augmented: whether images of the second stage are augmented;
            not in the authors' code for ImageNet.
        first_epochs: epochs of the first task, with its schedule of learning
            rates stretched to them, or `None` for those of `fit` (the authors'
            code: 100 for CIFAR, 60 for ImageNet; its rates are not known).
        first_augment: the augmentation of the first task, or `None` for the
            callback's (the authors' code for CIFAR: crop and flip).
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
        warm_start: whether a new head starts from a closed form of the features
            instead of at random.
        copies: variants of each image whose frozen outputs are cached; 0 runs
            the frozen layers on every augmented batch. It matters only with an
            on-line augmentation and a network that is frozen in part.

    Raises:
        ValueError: for a value out of range.

    >>> EEIL(finetune_epochs=15).temperature
    2.0
    """

    finetune_epochs: int = 30
    finetune_augmented: bool = True
    first_epochs: int | None = None
    first_augment: Callable | None = None
    temperature: float = 2.0
    distillation: bool = True
    learning_rate_factor: Callable[[int], float] = StepDecay()
    finetune_learning_rate: float = 0.1
    gradient_noise: GradientNoise | None = None
    classification: Objective = CrossEntropy()
    warm_start: bool = False
    copies: int = 0
    needs_memory = True

    def __post_init__(self):
        check_count("finetune_epochs", self.finetune_epochs, 0)
        check_count("copies", self.copies, 0)
        if self.first_epochs is not None:
            check_count("first_epochs", self.first_epochs, 1)
        if self.temperature <= 0 or self.finetune_learning_rate <= 0:
            raise ValueError(
                f"temperature={self.temperature} and finetune_learning_rate="
                f"{self.finetune_learning_rate}; expected both above 0."
            )

    def check(self, model, memory):
        super().check(model, memory)
        if self.distillation:  # the teacher is a clone
            check_cloneable(model.backbone)

    def grow(self, task: TaskStep) -> None:
        super().grow(task)
        if self.warm_start:
            warm_start(task)

    def phases(self, task: TaskStep) -> list[Phase]:
        phases = [
            Phase(
                name="training",
                epochs=task.epochs,
                sources=lambda: [task.samples, *task.exemplars()],
                objective=self._objective(task.known_classes),
                learning_rate_factor=self.learning_rate_factor,
                noise_stddev=self._noise(task, epochs_before=0),
                copies=self.copies,
            )
        ]
        if not task.known_classes:
            return [self._first(phases[0])]
        if self._can_balance(task):
            phases.append(self._balanced_fine_tuning(task))
        return phases

    def _first(self, phase: Phase) -> Phase:
        """Returns the phase of the first task."""
        epochs = self.first_epochs or phase.epochs
        return dataclasses.replace(
            phase,
            epochs=epochs,
            learning_rate_factor=lambda epoch: self.learning_rate_factor(
                epoch * phase.epochs // epochs
            ),
            augment=self.first_augment,
        )

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
            weighted=False,
            augmented=self.finetune_augmented,
            copies=self.copies,
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
            epochs_before + epoch + 1, task.batch_size
        )

    def _can_balance(self, task: TaskStep) -> bool:
        if task.memory is None or not self.finetune_epochs:
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
