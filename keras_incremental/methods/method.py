"""What a method is: a plan of phases for one incremental step."""

import abc
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from keras_incremental.exemplars import ExemplarMemory
from keras_incremental.models import IncrementalClassifier
from keras_incremental.samples import DEFAULT_CACHE_BYTES, Samples


@dataclasses.dataclass(frozen=True)
class Step:
    """One incremental step, as a method sees it.

    Attributes:
        model: the classifier.
        memory: the exemplars before the step, or `None`.
        samples: the new data.
        past: all data of earlier steps, if the method keeps it.
        new_labels: the labels that the model does not know yet.
        new_names: their names.
        known_classes: how many classes the model knew before the step.
        epochs: as passed to `fit`.
        batch_size: images per batch.
        augment: the callback's augmentation, or `None`.
        seed: the callback's.
        cache_bytes: host memory for data of the step.
        verbose: 0 silent, else with progress bars.
    """

    model: IncrementalClassifier
    memory: ExemplarMemory | None
    samples: Samples
    past: Sequence[Samples]
    new_labels: Sequence[int | str]
    new_names: Sequence[str]
    known_classes: int
    epochs: int
    batch_size: int
    augment: Callable | None = None
    seed: int = 0
    cache_bytes: int = DEFAULT_CACHE_BYTES
    verbose: int = 0

    def exemplars(self) -> list[Samples]:
        """Returns the stored exemplars as a source to mix in, if any."""
        return [self.memory.samples()] if self.memory else []


def unchanged(epoch: int) -> float:
    """A learning-rate factor of 1 in every epoch."""
    return 1.0


def silent(epoch: int) -> float:
    """Gradient noise of standard deviation 0 in every epoch."""
    return 0.0


def same(batch):
    """A batch as it is."""
    return batch


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
        augmented: whether the callback's augmentation applies.
        as_input: what the model takes, from a batch of the sources.
    """

    name: str
    epochs: int
    sources: Callable[[], list[Samples]]
    distilled_units: int = 0
    temperature: float = 2.0
    learning_rate_factor: Callable[[int], float] = unchanged
    noise_stddev: Callable[[int], float] = silent
    augmented: bool = True
    as_input: Callable = same


def no_details() -> dict:
    """What a method reports on a step that needs no words."""
    return {}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a method goes about one step, its model already grown.

    Attributes:
        phases: in order.
        features: called after the phases; the features of the new data, where
            the method has them at hand; else `None`.
        finish: called after the memory has taken in the new data; returns
            what is worth a note, JSON types.
    """

    phases: list[Phase]
    features: Callable[[], np.ndarray] | None = None
    finish: Callable[[], dict] = no_details


class Method(abc.ABC):
    """A class-incremental method.

    Attributes:
        needs_teacher: whether any phase distils; the train step then holds a
            teacher from the first step on.
        keeps_all_data: whether the data of all steps is kept for later ones.
        needs_memory: whether it is to be run with exemplars. A command line
            without them is refused.
        needs_branch_point: whether the model is to have a branch point.
    """

    needs_teacher = False
    keeps_all_data = False
    needs_memory = False
    needs_branch_point = False

    def check(self, model: IncrementalClassifier, memory) -> None:
        """Refuses a model or a memory that the method cannot work with.

        Raises:
            ValueError: before any data is read.
        """
        if model.has_branches:
            raise ValueError(
                f"{type(self).__name__} trains the whole network, and this "
                f"model's is frozen below {len(model.branches)} branches. Go "
                "on with PartialSharing()."
            )

    def plan(self, step: Step) -> Plan:
        """Grows the model and returns how to go on; called once a step."""
        if step.new_labels:
            step.model.add_classes(step.new_labels, step.new_names)
        return Plan(self.phases(step))

    @abc.abstractmethod
    def phases(self, step: Step) -> list[Phase]:
        """Returns the phases of a step, in order; the head has grown."""
