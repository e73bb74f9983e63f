"""The cross-distilled objective against a plain NumPy account."""

import numpy as np
import pytest

from keras_incremental.objectives import CrossDistilled

HEADS = [slice(0, 2), slice(2, 3), slice(3, 5)]


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def by_hand(outputs, units, distilled_units, temperature):
    """One head at a time, each by its own softmax."""
    student, teacher = outputs
    classification = -log_softmax(student)[np.arange(len(units)), units].mean()
    distillation = 0.0
    for head in HEADS:
        if head.stop <= distilled_units:
            p = np.exp(log_softmax(teacher[:, head] / temperature))
            q = log_softmax(student[:, head] / temperature)
            distillation -= (p * q).sum(axis=1).mean()
    return classification, distillation


def test_terms_are_those_of_a_plain_account_in_one_trace(use, data, outputs):
    x, y = data
    seen, traces = [], None
    for distilled_units in (0, 3, 5):
        for temperature in (2.0, 1.0, 5.0, 3):
            model = use(CrossDistilled(distilled_units, temperature))
            before = model.train_function_traces
            traces = before if traces is None else traces
            logs = model.fit(x, y, batch_size=len(x), verbose=0).history
            classification, distillation = by_hand(
                outputs, y, distilled_units, temperature
            )
            assert logs["classification_loss"][0] == pytest.approx(
                classification, rel=1e-4
            )
            assert logs["distillation_loss"][0] == pytest.approx(
                distillation, rel=1e-4, abs=1e-6
            )
            assert logs["loss"][0] == pytest.approx(
                classification + distillation, rel=1e-4
            )
            seen.append(round(distillation, 4))
    assert len(set(seen)) == 1 + 4 + 4  # each differs, but where there is none
    assert model.train_function_traces == traces + 1


def test_it_distils_only_where_units_are_distilled():
    assert CrossDistilled(3).distils and not CrossDistilled().distils
    assert CrossDistilled(0).needs_teacher
    assert CrossDistilled().temperature == 2.0


def test_the_teacher_stays_where_the_objective_was_set(use, data):
    x, y = data
    model = use(CrossDistilled(5))
    before = model.teacher_logits({"images": x})
    model.optimizer.learning_rate = 0.1
    model.fit(x, y, epochs=2, batch_size=len(x), verbose=0)
    model.optimizer.learning_rate = 0.0
    np.testing.assert_array_equal(model.teacher_logits({"images": x}), before)
    assert np.abs(before[:, :5] - model(x, training=False)).max() > 0.01
    model.use_objective(CrossDistilled(5))
    np.testing.assert_allclose(
        model.teacher_logits({"images": x})[:, :5],
        model(x, training=False),
        rtol=1e-5,
        atol=1e-5,
    )
