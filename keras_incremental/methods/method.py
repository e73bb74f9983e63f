"""What a method is: a plan of phases for one incremental step."""

import abc
import dataclasses
from collections.abc import Callable, Sequence

from keras_incremental.exemplars import ExemplarMemory
from keras_incremental.models import IncrementalClassifier
from keras_incremental.samples import Samples


@dataclasses.dataclass(frozen=True)
class Step:
    """One incremental step, as a method sees it.

    Attributes:
        model: the classifier, its head already grown.
        memory: the exemplars before the step, or `None`.
        samples: the new data.
        past: all data of earlier steps, if the method keeps it.
        known_classes: how many classes the model knew before the step.
        epochs: as passed to `fit`.
        batch_size: images per batch.
    """

    model: IncrementalClassifier
    memory: ExemplarMemory | None
    samples: Samples
    past: Sequence[Samples]
    known_classes: int
    epochs: int
    batch_size: int

    def exemplars(self) -> list[Samples]:
        """Returns the stored exemplars as a source to mix in, if any."""
        return [self.memory.samples()] if self.memory else []


def unchanged(epoch: int) -> float:
    """A learning-rate factor of 1 in every epoch."""
    return 1.0


def silent(epoch: int) -> float:
    """Gradient noise of standard deviation 0 in every epoch."""
    return 0.0


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of epochs on one mixture of data.

    The optimizer's state (momentum) starts anew with each phase. Where units
    are distilled, the teacher is the network at the start of the phase.

    Attributes:
        name: for messages.
        epochs: how many.
        sources: called at the start of the phase; the data to mix.
        distilled_units: the first so many units are distilled.
        temperature: T of the distillation.
        learning_rate_factor: epoch of the phase -> factor on the compiled
            learning rate.
        noise_stddev: epoch of the phase -> standard deviation of the noise
            added to the batch-mean gradient.
    """

    name: str
    epochs: int
    sources: Callable[[], list[Samples]]
    distilled_units: int = 0
    temperature: float = 2.0
    learning_rate_factor: Callable[[int], float] = unchanged
    noise_stddev: Callable[[int], float] = silent


class Method(abc.ABC):
    """A class-incremental method.

    Attributes:
        needs_teacher: whether any phase distils; the train step then holds a
            teacher from the first step on.
        keeps_all_data: whether the data of all steps is kept for later ones.
    """

    needs_teacher = False
    keeps_all_data = False

    @abc.abstractmethod
    def phases(self, step: Step) -> list[Phase]:
        """Returns the phases of a step, in order."""
