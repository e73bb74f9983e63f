"""The phases that a method divides a task into."""

import dataclasses
from collections.abc import Callable

from keras_incremental.objectives import CrossEntropy, Objective
from keras_incremental.samples import Samples


def unchanged(epoch: int) -> float:
    """A learning-rate factor of 1 in every epoch."""
    return 1.0


def no_noise(epoch: int) -> float:
    """Gradient noise of standard deviation 0 in every epoch."""
    return 0.0


@dataclasses.dataclass(frozen=True)
class Phase:
    """Epochs of gradient descent on one mixture of data.

    The optimizer's state (momentum) starts anew with each phase. The teacher of
    an objective that needs one is the network at the start of the phase.

    Attributes:
        name: for messages.
        epochs: how many.
        sources: called at the start of the phase; the data to mix.
        objective: what is minimised.
        learning_rate_factor: epoch of the phase -> factor on the compiled
            learning rate.
        noise_stddev: epoch of the phase -> standard deviation of the noise
            added to the batch-mean gradient.
        augmented: whether an augmentation applies.
        augment: an augmentation in place of the callback's, or `None`; without
            `copies`.
        copies: with an augmentation, the variants of each image for which the
            outputs of the network's frozen part are cached, all but the first
            of them augmented; 0 runs the frozen part on every augmented batch.
            Without an augmentation these outputs are always cached.
        weighted: whether the `class_weight` of `fit` applies; not where the
            sources are balanced already.
    """

    name: str
    epochs: int
    sources: Callable[[], list[Samples]]
    objective: Objective = dataclasses.field(default_factory=CrossEntropy)
    learning_rate_factor: Callable[[int], float] = unchanged
    noise_stddev: Callable[[int], float] = no_noise
    augmented: bool = True
    augment: Callable | None = None
    copies: int = 0
    weighted: bool = True

    def __post_init__(self):
        if self.augment is not None and self.copies:
            raise ValueError(
                f"Phase {self.name!r} has an augmentation of its own and "
                f"copies={self.copies}, which are made by the callback's. "
                "Leave one of them out."
            )


@dataclasses.dataclass(frozen=True)
class ClosedFormPhase:
    """A phase without epochs: the solution is computed and assigned.

    A phase of epochs that follows it can be resumed after a kill only if
    `solve` assigns values alone: set a score rule in the last phase or in
    `Method.finish`.

    Attributes:
        name: for messages.
        solve: called once; it assigns what it finds, such as head kernels.
    """

    name: str
    solve: Callable[[], None]
    epochs: int = 0
