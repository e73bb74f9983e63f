"""The upper bound: at every step, train on all data so far."""

import dataclasses
import logging
from collections.abc import Callable

from keras_incremental.methods.method import Method, Phase, Step
from keras_incremental.methods.schedules import StepDecay

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Joint(Method):
    """Trains on all data of all steps so far, without a memory limit.

    The network goes on from its present weights. Datasets of earlier steps
    are kept for as long as the callback lives. Use it as the upper bound of a
    comparison.

    Args:
        learning_rate_factor: epoch -> factor on the compiled learning rate;
            the same default as `EEIL`.

    >>> Joint().keeps_all_data
    True
    """

    learning_rate_factor: Callable[[int], float] = StepDecay()
    keeps_all_data = True

    def phases(self, step: Step) -> list[Phase]:
        if step.known_classes and not step.past:
            _logger.warning(
                "Joint has no data of the %d classes learned before: it was "
                "with another callback, or in another process.",
                step.known_classes,
            )
        return [
            Phase(
                name="training on all data",
                epochs=step.epochs,
                sources=lambda: [*step.past, step.samples],
                learning_rate_factor=self.learning_rate_factor,
            )
        ]
