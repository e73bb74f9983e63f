"""The upper bound: at every task, train on all data so far."""

import dataclasses
import logging
from collections.abc import Callable

from keras_incremental.methods.method import Method
from keras_incremental.methods.phase import Phase
from keras_incremental.methods.schedules import StepDecay
from keras_incremental.methods.task_step import TaskStep
from keras_incremental.networks import SingleNetwork

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Joint(Method):
    """Trains on all data of all tasks so far, without a memory limit.

    Datasets of earlier tasks are kept for as long as the callback lives. Use
    it as the upper bound of a comparison; those of the papers are trained from
    scratch.

    Args:
        from_scratch: whether each task starts from newly drawn weights, frozen
            layers aside; otherwise the network goes on from its present ones.
        learning_rate_factor: epoch -> factor on the compiled learning rate;
            the same default as `EEIL`.
        copies: as for `EEIL`.

    Raises:
        ValueError: from scratch, where the data of known classes is gone.

    >>> Joint().keeps_all_data
    True
    """

    from_scratch: bool = False
    learning_rate_factor: Callable[[int], float] = StepDecay()
    copies: int = 0
    keeps_all_data = True

    def check(self, model, memory):
        super().check(model, memory)
        if self.from_scratch and not isinstance(model.network, SingleNetwork):
            raise ValueError(
                "Joint(from_scratch=True) draws the weights of a whole network "
                f"anew, and the model's is a {type(model.network).__name__}, "
                "partly frozen. Start from a model without branches."
            )

    def grow(self, task: TaskStep) -> None:
        if self.from_scratch and task.known_classes and not task.past:
            raise ValueError(
                "Joint(from_scratch=True) would forget the "
                f"{task.known_classes} classes learned before: their data was "
                "with another callback, or in another process. Fit all tasks "
                "with one callback, or pass from_scratch=False."
            )
        super().grow(task)
        if self.from_scratch:
            seed = (task.seed, len(task.model.heads))
            task.model.network.reinitialize(seed)

    def phases(self, task: TaskStep) -> list[Phase]:
        if task.known_classes and not task.past:
            _logger.warning(
                "Joint has no data of the %d classes learned before: it was "
                "with another callback, or in another process.",
                task.known_classes,
            )
        return [
            Phase(
                name="training on all data",
                epochs=task.epochs,
                sources=lambda: [*task.past, task.samples],
                learning_rate_factor=self.learning_rate_factor,
                copies=self.copies,
            )
        ]
