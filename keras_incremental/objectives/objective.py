"""What is minimised while a phase is trained."""

import abc
import dataclasses
import numbers
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, repr=False)
class Batch:
    """One batch in the train step, as an objective sees it.

    Attributes:
        units: `(batch,)` integers, the position of the true class among the
            trained units.
        logits: `(batch, units)`, the network's, in training mode.
        features: `(batch, dim)`, the network's, in training mode.
        head_of_unit: `(units,)` int32, ascending from 0.
        teacher_logits: returns the teacher's logits `(batch, units)`, without
            gradient; call it only if the objective `needs_teacher`.
        compiled_loss: returns the loss that was passed to `compile`, a scalar;
            `None` where none was passed.
    """

    units: tf.Tensor
    logits: tf.Tensor
    features: tf.Tensor
    head_of_unit: tf.Tensor
    teacher_logits: Callable[[], tf.Tensor]
    compiled_loss: Callable[[], tf.Tensor] | None = None


class Objective(abc.ABC):
    """A sum of terms that a phase minimises; a frozen dataclass of numbers.

    The train step is traced with a variable in place of each number and each
    array among the fields. So phases, and tasks, whose objectives differ in
    numbers alone share one trace. Fields of other types are part of the trace;
    a field may hold another objective.

        @dataclasses.dataclass(frozen=True)
        class Focal(ki.objectives.Objective):
            gamma: float = 2.0

            def terms(self, batch):
                loss = ki.losses.classification_loss(batch.units, batch.logits)
                weight = (1 - tf.exp(-loss)) ** self.gamma
                return {"classification": weight * loss}

    Attributes:
        term_names: the names of the terms, in order; each is shown by Keras as
            `<name>_loss`.
        needs_teacher: whether `Batch.teacher_logits` is called. The teacher is
            the network at the start of the phase.
    """

    term_names: tuple[str, ...] = ("classification",)
    needs_teacher: bool = False

    @property
    def distils(self) -> bool:
        """Whether the teacher's logits matter, with these numbers."""
        return self.needs_teacher

    def with_counts(self, images_per_class: np.ndarray) -> "Objective":
        """Returns the objective for a phase on so many images of each class.

        Called at the start of a phase; by default the objective as it is.

        Args:
            images_per_class: `(trained classes,)` integers.
        """
        return self

    @abc.abstractmethod
    def terms(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Returns the terms by name, each `(batch,)` or a scalar, in nats.

        The loss is the sum of their batch means, plus the layers' own
        regularisation.
        """


class TracedObjective:
    """An objective with variables in place of its numbers.

    Args:
        objective: a frozen dataclass; its numbers are the variables' values.

    Attributes:
        objective: the same with variables; the train step calls it.
        term_means: a Keras metric for the epoch's mean of each term, by name.
        train_function: traced for this objective, or `None`.
    """

    def __init__(self, objective: Objective):
        self.train_function = None
        self.term_means = {
            name: keras.metrics.Mean(f"{name}_loss")
            for name in objective.term_names
        }
        self._plan, _ = _split(objective)
        self._variables: list[tf.Variable] = []
        self.objective = self._with_variables(objective)

    def fits(self, objective: Objective) -> bool:
        """Whether another objective differs from this one in numbers alone."""
        plan, _ = _split(objective)
        return plan == self._plan

    def assign(self, objective: Objective) -> None:
        """Takes over the numbers of an objective that fits."""
        _, values = _split(objective)
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)

    def _with_variables(self, objective: Objective) -> Objective:
        changes = {}
        for name, value in _fields(objective):
            if isinstance(value, Objective):
                changes[name] = self._with_variables(value)
            elif isinstance(value, np.ndarray):
                any_length = tf.TensorShape([None] * value.ndim)
                changes[name] = tf.Variable(
                    value, trainable=False, shape=any_length
                )
                self._variables.append(changes[name])
        # Not `replace`, which would check variables as if they were numbers.
        copy = object.__new__(type(objective))
        copy.__dict__.update({**vars(objective), **changes})
        return copy


def _split(objective: Objective) -> tuple[tuple, list[np.ndarray]]:
    """Returns all of an objective but its numbers, and its numbers.

    A trace fits all objectives that are equal in the first.
    """
    plan: list = [type(objective)]
    values = []
    for name, value in _fields(objective):
        if isinstance(value, Objective):
            value, inner_values = _split(value)
            values += inner_values
        elif isinstance(value, np.ndarray):
            values.append(value)
            value = value.dtype.name, value.ndim
        plan.append((name, value))
    return tuple(plan), values


def _fields(objective: Objective) -> list[tuple[str, object]]:
    """Returns names and values; numbers are arrays, which become variables."""
    return [
        (field.name, _as_array(field, getattr(objective, field.name)))
        for field in dataclasses.fields(objective)
    ]


def _as_array(field: dataclasses.Field, value):
    """Returns a number or an array as int32 or float32, all else as it is."""
    is_number = isinstance(value, (numbers.Real, np.ndarray))
    if not is_number or isinstance(value, (bool, np.bool_)):
        return value
    array = np.asarray(value)
    # An integer is a float where the field is declared as one.
    is_float = array.ndim == 0 and field.type in (float, "float")
    is_integer = array.dtype.kind in "iu" and not is_float
    return array.astype(np.int32 if is_integer else np.float32)
