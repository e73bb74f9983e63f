"""The objectives of later methods against plain NumPy accounts."""

import numpy as np
import pytest
import tensorflow as tf

from keras_incremental.objectives import (
    BalancedSoftmax,
    Batch,
    Corrected,
    CrossDistilled,
    CrossEntropy,
    SeparatedSoftmax,
    SigmoidDistilled,
    WeightedDistillation,
)

OLD = 3  # of the classes of the model; the first two heads


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def distillation(student, teacher, temperature):
    p = np.exp(log_softmax(teacher / temperature))
    return -(p * log_softmax(student / temperature)).sum(axis=1)


def check(use, data, objective, expected):
    """Compares the terms of one batch, in mean, with those by hand."""
    x, y = data
    model = use(objective)
    logs = model.fit(x, y, batch_size=len(x), verbose=0).history
    for name, value in expected.items():
        assert logs[f"{name}_loss"][0] == pytest.approx(
            np.mean(value), rel=1e-4, abs=1e-6
        )
    assert logs["loss"][0] == pytest.approx(
        sum(map(np.mean, expected.values())), rel=1e-4
    )
    return model


@pytest.mark.parametrize("counts", [[8, 1, 1, 4, 0], [5, 5, 5, 5, 5]])
def test_balanced_softmax(use, data, outputs, counts):
    (x, y), (student, _) = data, outputs
    shares = np.maximum(counts, 1) / np.maximum(counts, 1).sum()
    loss = -log_softmax(student + np.log(shares))[np.arange(len(x)), y]
    objective = BalancedSoftmax().with_counts(np.array(counts))
    check(use, data, objective, {"classification": loss})


def test_equal_shares_are_the_plain_softmax(use, data, outputs):
    (x, y), (student, _) = data, outputs
    loss = -log_softmax(student)[np.arange(len(x)), y]
    objective = BalancedSoftmax(np.full(5, 7))
    check(use, data, objective, {"classification": loss})


def test_counts_that_are_given_stay():
    given = BalancedSoftmax(np.array([1, 2]))
    assert given.with_counts(np.array([5, 5])) is given


def test_cross_distilled_passes_counts_on():
    objective = CrossDistilled(2, 2.0, BalancedSoftmax())
    counted = objective.with_counts(np.array([3, 4]))
    assert counted.classification.images_per_class.tolist() == [3, 4]
    assert CrossDistilled(2).with_counts(np.array([3])) == CrossDistilled(2)


@pytest.mark.parametrize("classes", [5, 100])
def test_sigmoid_distilled(use, data, outputs, classes):
    (_, y), (student, teacher) = data, outputs
    targets = np.eye(5)[y]
    targets[:, :OLD] = 1 / (1 + np.exp(-teacher[:, :OLD]))  # of all images
    losses = (
        np.log1p(np.exp(-np.abs(student)))
        + np.maximum(student, 0)
        - student * targets
    ) / classes
    expected = {
        "classification": losses[:, OLD:].sum(axis=1),
        "distillation": losses[:, :OLD].sum(axis=1),
    }
    check(use, data, SigmoidDistilled(OLD, classes), expected)


def test_sigmoid_without_old_classes(use, data, outputs):
    (_, y), (student, _) = data, outputs
    losses = np.logaddexp(0, student) - student * np.eye(5)[y]
    expected = {"classification": losses.sum(axis=1) / 5, "distillation": 0.0}
    check(use, data, SigmoidDistilled(0, 5), expected)


@pytest.mark.parametrize("old", [0, OLD])
def test_weighted_distillation_has_one_softmax_of_all_old(
    use, data, outputs, old
):
    (x, y), (student, teacher) = data, outputs
    loss = -log_softmax(student)[np.arange(len(x)), y]
    kept = distillation(student[:, :OLD], teacher[:, :OLD], 2.0)
    share = old / 5
    expected = {"classification": (1 - share) * loss}
    expected["distillation"] = share * kept if old else 0.0
    check(use, data, WeightedDistillation(old, share), expected)


def test_separated_softmax(use, data, outputs):
    (x, y), (student, teacher) = data, outputs
    counts = np.array([6, 1, 1, 20, 12])  # a fifth of them is old
    rows = np.arange(len(x))
    is_old = y < OLD
    loss = np.empty(len(x))
    loss[is_old] = -log_softmax(student[:, :OLD])[rows[is_old], y[is_old]]
    loss[~is_old] = -log_softmax(student[:, OLD:])[
        rows[~is_old], y[~is_old] - OLD
    ]
    kept = 4 * sum(
        distillation(student[:, head], teacher[:, head], 2.0)
        for head in (slice(0, 2), slice(2, 3))
    )
    expected = {"classification": loss, "distillation": kept}
    objective = SeparatedSoftmax(OLD).with_counts(counts)
    check(use, data, objective, expected)
    # Half of them are old: exemplars count less, new images more.
    weight = np.where(is_old, 0.2 / 0.5, 0.8 / 0.5)
    objective = SeparatedSoftmax(OLD).with_counts(np.array([10, 5, 5, 10, 10]))
    expected = {k: weight * value for k, value in expected.items()}
    check(use, data, objective, expected)


def test_separated_softmax_leaves_the_level_of_new_logits_open(data, outputs):
    (_, y), (student, teacher) = data, outputs

    def terms(level):
        batch = Batch(
            y,
            tf.constant(student + level * (np.arange(5) >= OLD), tf.float32),
            None,
            tf.constant([0, 0, 1, 2, 2]),
            lambda: tf.constant(teacher, tf.float32),
        )
        objective = SeparatedSoftmax(OLD).with_counts(np.full(5, 4))
        return objective.terms(batch)

    for mine, other in zip(
        terms(0.0).values(), terms(3.0).values(), strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("old", [0, 5])
def test_one_kind_of_images_has_no_weights(use, data, outputs, old):
    (x, y), (student, teacher) = data, outputs
    loss = -log_softmax(student)[np.arange(len(x)), y]
    kept = 4 * sum(
        distillation(student[:, head], teacher[:, head], 2.0)
        for head in (slice(0, 2), slice(2, 3), slice(3, 5))
    )
    expected = {"classification": loss, "distillation": kept if old else 0.0}
    objective = SeparatedSoftmax(old).with_counts(np.full(5, 4))
    check(use, data, objective, expected)


def test_corrected_logits_of_student_and_teacher(use, data, outputs):
    (x, y), (student, teacher) = data, outputs
    scales, biases = np.array([1, 1, 2, 0.5, 0.5]), np.array([0, 0, 1, -1, -1])
    student, teacher = scales * student + biases, scales * teacher + biases
    loss = -log_softmax(student)[np.arange(len(x)), y]
    kept = distillation(student[:, :OLD], teacher[:, :OLD], 2.0)
    expected = {"classification": 0.4 * loss, "distillation": 0.6 * kept}
    objective = Corrected(WeightedDistillation(OLD, 0.6), scales, biases)
    check(use, data, objective, expected)


def test_what_they_pass_on():
    objective = Corrected(CrossEntropy(), np.ones(2), np.zeros(2))
    assert objective.term_names == ("classification",)
    assert not objective.needs_teacher and not objective.distils
    distilling = Corrected(WeightedDistillation(2, 0.5), np.ones(3), np.ones(3))
    assert distilling.needs_teacher and distilling.distils


@pytest.mark.parametrize(
    "make",
    [
        lambda n: BalancedSoftmax(np.full(5, n)),
        lambda n: SigmoidDistilled(n, 5 * n),
        lambda n: WeightedDistillation(n, n / 5),
        lambda n: SeparatedSoftmax(n).with_counts(np.full(5, n)),
        lambda n: Corrected(CrossEntropy(), np.full(5, 1.0 * n), np.zeros(5)),
    ],
)
def test_one_trace_whatever_the_numbers_are(use, data, make):
    x, y = data
    traces = []
    for number in (2, 3, 5):
        model = use(make(number))
        model.fit(x, y, batch_size=len(x), verbose=0)
        traces.append(model.train_function_traces)
    assert traces[0] == traces[-1]
