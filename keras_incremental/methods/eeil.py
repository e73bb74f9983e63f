"""End-to-End Incremental Learning (Castro et al., ECCV 2018)."""

import dataclasses
import logging
from collections.abc import Callable

from keras_incremental.exemplars import balanced_samples
from keras_incremental.methods.method import Method, Phase, Step, silent
from keras_incremental.methods.schedules import GradientNoise, StepDecay

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

    @property
    def needs_teacher(self) -> bool:
        return self.distillation

    def phases(self, step: Step) -> list[Phase]:
        old_units = step.known_classes
        phases = [
            self._phase(
                step,
                name="training",
                epochs=step.epochs,
                sources=lambda: [step.samples, *step.exemplars()],
                distilled_units=old_units,
                learning_rate_factor=self.learning_rate_factor,
            )
        ]
        if old_units and self.finetune_epochs and self._can_balance(step):
            phases.append(
                self._phase(
                    step,
                    name="balanced fine-tuning",
                    epochs=self.finetune_epochs,
                    sources=lambda: [self._balanced(step)],
                    distilled_units=step.model.num_classes,
                    learning_rate_factor=lambda epoch: (
                        self.finetune_learning_rate
                        * self.learning_rate_factor(epoch)
                    ),
                    epochs_before=step.epochs,
                )
            )
        return phases

    def _phase(self, step, *, distilled_units, epochs_before=0, **fields):
        noise, stddev = self.gradient_noise, silent
        if noise is not None:

            def stddev(epoch):
                return noise.stddev(epochs_before + epoch, step.batch_size)

        return Phase(
            distilled_units=distilled_units if self.distillation else 0,
            temperature=self.temperature,
            noise_stddev=stddev,
            **fields,
        )

    def _balanced(self, step: Step):
        return balanced_samples(
            step.memory, step.samples, step.model.extract_features
        )

    def _can_balance(self, step: Step) -> bool:
        if step.memory is None:
            return False
        old = step.model.labels[: step.known_classes]
        missing = step.memory.lacking(old)
        if missing:
            _logger.warning(
                "Balanced fine-tuning is left out: the memory has no exemplar "
                "of the known classes %s.",
                missing[:10],
            )
        return not missing
