"""Weight aligning (Zhao et al., CVPR 2020)."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_incremental.methods.method import Method
from keras_incremental.methods.phase import ClosedFormPhase, Phase
from keras_incremental.methods.schedules import StepDecay
from keras_incremental.methods.task_step import TaskStep
from keras_incremental.networks import Network
from keras_incremental.objectives import WeightedDistillation


@dataclasses.dataclass(frozen=True)
class WeightAligning(Method):
    """Trains with distillation, then shortens the new classes' weights.

    1. On new data and all exemplars `(1 - l) CE + l KD`, `l = n_old / n`
       (`keras_incremental.objectives.WeightedDistillation`).
    2. The head's columns of the new classes are multiplied by
       `mean |w_old| / mean |w_new|`; biases stay. The aligned network chooses
       the exemplars, and is the next task's teacher.

    Source: Zhao et al., CVPR 2020 (arXiv:1911.07053), Eqs. 3 to 8.

    Args:
        temperature: T of the distillation.
        learning_rate_factor: epoch -> factor on the compiled learning rate.

    >>> WeightAligning().temperature
    2.0
    """

    temperature: float = 2.0
    learning_rate_factor: Callable[[int], float] = StepDecay()
    needs_memory = True

    def phases(self, task: TaskStep) -> list[Phase | ClosedFormPhase]:
        old = task.known_classes
        training = Phase(
            name="training",
            epochs=task.epochs,
            sources=lambda: [task.samples, *task.exemplars()],
            objective=WeightedDistillation(
                old, old / task.model.num_classes, self.temperature
            ),
            learning_rate_factor=self.learning_rate_factor,
        )
        return [training, *aligning_phases(task)]


def aligning_phases(task: TaskStep) -> list[ClosedFormPhase]:
    """Returns the phase that aligns the newest head; none without old ones."""
    if not (task.known_classes and task.new_labels):
        return []
    network = task.model.network
    return [ClosedFormPhase("weight aligning", lambda: align_newest(network))]


def align_newest(network: Network) -> float:
    """Gives the newest head's weights the mean length of the older heads'.

    Args:
        network: with two heads or more.

    Returns:
        The factor, `mean |w_old| / mean |w_new|`.
    """
    count = len(network.heads)
    kernels = [network.head_weights(index)[0] for index in range(count)]
    lengths = [np.linalg.norm(kernel, axis=0) for kernel in kernels]
    factor = np.concatenate(lengths[:-1]).mean() / lengths[-1].mean()
    _, bias = network.head_weights(-1)
    network.set_head_weights(-1, factor * kernels[-1], bias)
    return float(factor)
