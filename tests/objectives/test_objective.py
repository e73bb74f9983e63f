"""What is a number becomes a variable; what is not is part of the trace."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.losses import classification_loss
from keras_incremental.objectives import (
    CrossDistilled,
    CrossEntropy,
    Objective,
    TracedObjective,
)


@dataclasses.dataclass(frozen=True)
class Weighted(Objective):
    """`factor` times the loss, each class by its weight."""

    factor: float = 1.0
    class_weights: np.ndarray = dataclasses.field(
        default_factory=lambda: np.ones(5)
    )
    squared: bool = False

    term_names = ("weighted",)

    def __post_init__(self):
        if self.factor < 0:
            raise ValueError("factor")

    def terms(self, batch):
        loss = classification_loss(batch.units, batch.logits)
        loss = loss**2 if self.squared else loss
        weights = tf.gather(self.class_weights, batch.units)
        return {"weighted": self.factor * weights * loss}


@dataclasses.dataclass(frozen=True)
class Scaled(Objective):
    factor: float

    def terms(self, batch):
        loss = classification_loss(batch.units, batch.logits)
        return {"classification": self.factor * loss}


class NoDataclass(Objective):
    def terms(self, batch):
        return {"classification": 0.0}


def losses(logits, units):
    z = logits - logits.max(axis=-1, keepdims=True)
    z = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return -z[np.arange(len(units)), units]


def fitted(model, data):
    """Returns the logs of one step, and how many traces it needed."""
    before = model.train_function_traces
    x, y = data
    logs = model.fit(x, y, batch_size=len(x), verbose=0).history
    logs = {name: values[0] for name, values in logs.items()}
    return logs, model.train_function_traces - before


def test_numbers_and_arrays_of_any_length_share_a_trace(use, data, outputs):
    expected = losses(outputs[0], data[1])
    weights = np.arange(1.0, 6.0)
    traces = 0
    for factor, by_class in (
        (1.0, np.ones(5)),
        (0.25, weights),
        (2, np.arange(1, 9) / 1.0),  # an int, and more classes
    ):
        logs, more = fitted(use(Weighted(factor, by_class)), data)
        traces += more
        by_hand = (factor * by_class[data[1]] * expected).mean()
        assert logs["weighted_loss"] == pytest.approx(by_hand, rel=1e-4)
        assert logs["loss"] == pytest.approx(by_hand, rel=1e-4)
        assert "classification_loss" not in logs
    assert traces == 1


def test_another_structure_has_a_trace_of_its_own_and_comes_back(
    use, data, outputs
):
    expected = losses(outputs[0], data[1])
    known = [CrossDistilled(3), Weighted(), Weighted(squared=True)]
    for objective in known:
        fitted(use(objective), data)
    for objective in (
        Weighted(),
        Weighted(2.0, squared=True),
        CrossDistilled(5, 1.0),
        Weighted(),
    ):
        logs, traces = fitted(use(objective), data)
        assert traces == 0, objective
        assert {f"{name}_loss" for name in objective.term_names} == {
            name for name in logs if name.endswith("_loss")
        }
    assert logs["loss"] == pytest.approx(expected.mean(), rel=1e-4)
    logs, _ = fitted(use(Weighted(2.0, squared=True)), data)
    assert logs["loss"] == pytest.approx(2 * (expected**2).mean(), rel=1e-4)


def test_numbers_of_a_nested_objective_are_variables_too(use, data, outputs):
    expected = losses(outputs[0], data[1]).mean()
    traces = 0
    for factor in (0.5, 3.0):
        objective = CrossDistilled(5, classification=Scaled(factor))
        logs, more = fitted(use(objective), data)
        traces += more
        assert logs["classification_loss"] == pytest.approx(
            factor * expected, rel=1e-4
        )
        assert logs["distillation_loss"] > 0
    assert traces == 1
    # The same with another classification is another structure.
    assert not TracedObjective(objective).fits(CrossDistilled(5))


def test_what_fits_differs_in_numbers_alone():
    traced = TracedObjective(Weighted())
    assert traced.fits(Weighted(3.0, np.ones(9)))
    assert traced.fits(Weighted(3))
    assert not traced.fits(Weighted(squared=True))
    assert not traced.fits(Weighted(class_weights=np.ones((5, 1))))
    assert not traced.fits(Scaled(1.0)) and not traced.fits(CrossEntropy())
    traced.assign(Weighted(3.0, np.arange(2)))
    assert float(traced.objective.factor) == 3
    assert traced.objective.class_weights.numpy().tolist() == [0, 1]
    assert traced.objective.squared is False
    assert [*traced.term_means] == ["weighted"]


def test_the_given_objective_keeps_its_numbers():
    objective = Weighted(3.0)
    TracedObjective(objective).assign(Weighted(4.0))
    assert objective.factor == 3.0


def test_an_objective_that_is_no_dataclass_is_refused():
    with pytest.raises(TypeError, match="dataclass"):
        TracedObjective(NoDataclass())


def test_the_compiled_loss_takes_the_place_of_cross_entropy(
    data,
):
    penalised = keras.layers.Dense(2, kernel_regularizer="l2")
    backbone = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), penalised]
    )
    model = ki.IncrementalClassifier(backbone)
    model.add_classes([0, 3])
    model.compile(
        keras.optimizers.SGD(0.0),
        loss=lambda units, logits: 0 * tf.reduce_sum(logits, -1) + 3.0,
    )
    kernels = penalised.kernel, model.network.head_weights(0)[0]
    penalty = 0.01 * sum(float(np.sum(np.square(k))) for k in kernels)
    logs, _ = fitted(model, data)
    assert logs["classification_loss"] == pytest.approx(3.0)
    assert logs["loss"] == pytest.approx(3.0 + penalty, rel=1e-5)
