"""What a method is: how a classifier grows, and the phases of one task."""

import abc
import numbers
from collections.abc import Sequence

from keras_incremental.exemplars import ExemplarMemory
from keras_incremental.methods.phase import ClosedFormPhase, Phase
from keras_incremental.methods.task_step import TaskStep
from keras_incremental.models import IncrementalClassifier


class Method(abc.ABC):
    """A class-incremental method; a frozen dataclass of its knobs.

    For each task, in this order: `check`; `grow`; `phases`, one after the
    other; the memory takes in the new data; `finish`. A task is all or nothing:
    if anything raises, model and memory are what they were.

    Attributes:
        needs_memory: whether it is to be run with exemplars. A command line
            without them is refused.
        needs_branch_point: whether the model is to have a branch point.
        needs_optimizer: whether any phase has epochs. If not, the model need
            not be compiled.
        keeps_all_data: whether the data of all tasks is kept for later ones.
    """

    keeps_all_data = False
    needs_optimizer = True
    needs_memory = False
    needs_branch_point = False

    def check(
        self, model: IncrementalClassifier, memory: ExemplarMemory | None
    ) -> None:
        """Refuses a model or a memory that the method cannot work with.

        By default, a network of which only the newest classes are trained.

        Raises:
            ValueError: before any data is read.
        """
        if model.network.trained_units != slice(0, model.num_classes):
            raise ValueError(
                f"{type(self).__name__} trains the whole network, and this "
                f"model's is frozen below {len(model.heads) - 1} branches. Go "
                "on with PartialSharing()."
            )

    def grow(self, task: TaskStep) -> None:
        """Grows the model by the new classes; by default a new head."""
        if task.new_labels:
            task.model.add_classes(task.new_labels, task.new_names)

    @abc.abstractmethod
    def phases(self, task: TaskStep) -> Sequence[Phase | ClosedFormPhase]:
        """Returns the phases of a task, in order; the model has grown."""

    def finish(self, task: TaskStep) -> None:  # noqa: B027 (may do nothing)
        """Called at the end, with the memory up to date.

        A method that decides by a score rule sets it here:
        `task.model.score_rule = ...`. `task.details` takes what is worth a note
        in the report.
        """


def check_count(name: str, value: int, least: int) -> None:
    """Refuses a knob that is no integer, or too small.

    Raises:
        ValueError: with its name and value.
    """
    is_int = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_int or value < least:
        raise ValueError(f"{name}={value!r}; expected an integer >= {least}.")


def check_share(name: str, value: float) -> None:
    """Refuses a share that is all or nothing.

    Raises:
        ValueError: with its name and value.
    """
    if not 0 < value < 1:
        raise ValueError(
            f"{name}={value!r}; expected a number above 0 and below 1."
        )
