"""Metrics of one evaluation, against hand-computed values and loops."""

import ast
import pathlib
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_incremental import metrics

SEEDS = st.integers(0, 2**32 - 1)


def test_accuracy_is_over_all_samples_not_the_mean_over_tasks():
    # Task 0 has 3 samples (all right), task 1 has 1 (wrong).
    predictions, units = [0, 1, 1, 0], [0, 1, 1, 2]
    assert metrics.accuracy(predictions, units) == 0.75
    per_task = metrics.per_task_accuracy(predictions, units, [0, 0, 1])
    assert per_task.tolist() == [1.0, 0.0]


def test_per_task_accuracy_counts_a_mistake_for_the_true_task():
    # Task 0: units 0 and 3. Its sample taken for unit 1 is its mistake.
    per_task = metrics.per_task_accuracy(
        [0, 1, 1, 2], [0, 3, 1, 2], [0, 1, 1, 0]
    )
    assert per_task.tolist() == [0.5, 1.0]
    assert per_task.dtype == np.float64


def test_task_without_samples_has_no_accuracy():
    per_task = metrics.per_task_accuracy([0, 2], [0, 2], [0, 1, 2])
    np.testing.assert_array_equal(per_task, [1.0, np.nan, 1.0])


def test_top_k_counts_the_true_unit_among_the_k_best():
    logits = [[4.0, 3.0, 2.0, 1.0]] * 4
    units = [0, 1, 2, 3]
    scores = [metrics.top_k_accuracy(logits, units, k) for k in (1, 2, 3, 4)]
    assert scores == [0.25, 0.5, 0.75, 1.0]


def test_top_k_is_one_with_no_more_classes_than_k():
    logits = [[0.0, 1.0], [np.nan, np.nan]]
    assert metrics.top_k_accuracy(logits, [0, 1]) == 1.0


def test_top_k_breaks_ties_against_the_true_unit():
    constant = np.zeros((6, 6))
    assert metrics.top_k_accuracy(constant, range(6), k=5) == 0.0
    # Two share the second place: not surely among the 2 best, but the 3.
    logits = [[3.0, 2.0, 2.0, 1.0]]
    assert metrics.top_k_accuracy(logits, [1], k=2) == 0.0
    assert metrics.top_k_accuracy(logits, [1], k=3) == 1.0


def test_top_k_of_a_diverged_network_is_zero():
    diverged = np.full((3, 10), np.nan)
    assert metrics.top_k_accuracy(diverged, [0, 4, 9]) == 0.0


def test_confusion_has_true_units_as_rows():
    confusion = metrics.confusion_matrix([0, 0, 0, 2], [0, 1, 1, 2], 3)
    assert confusion.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_small_integer_types_do_not_overflow():
    units = np.arange(200, dtype=np.uint8)
    confusion = metrics.confusion_matrix(units, units.astype(np.uint64), 200)
    np.testing.assert_array_equal(confusion, np.eye(200))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 30), st.integers(1, 6), SEEDS)
def test_metrics_equal_plain_loops(num_classes, samples, k, seed):
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, 6, (samples, num_classes)).astype(np.float32)
    units = rng.integers(0, num_classes, samples)
    task_of_unit = np.arange(num_classes) // 3
    predictions = logits.argmax(axis=1)

    confusion = np.zeros((num_classes, num_classes), int)
    hits, right, seen = 0, {}, {}
    for row, unit, prediction in zip(logits, units, predictions, strict=True):
        confusion[unit, prediction] += 1
        better_or_equal = sum(
            row[c] >= row[unit] for c in range(num_classes) if c != unit
        )
        hits += better_or_equal < k
        task = task_of_unit[unit]
        seen[task] = seen.get(task, 0) + 1
        right[task] = right.get(task, 0) + (unit == prediction)
    per_task = [
        right[task] / seen[task] if task in seen else np.nan
        for task in range(task_of_unit[-1] + 1)
    ]

    np.testing.assert_array_equal(
        metrics.confusion_matrix(units, predictions, num_classes), confusion
    )
    assert metrics.top_k_accuracy(logits, units, k) == hits / samples
    np.testing.assert_allclose(
        metrics.per_task_accuracy(predictions, units, task_of_unit), per_task
    )
    assert metrics.accuracy(predictions, units) == pytest.approx(
        np.trace(confusion) / samples
    )
    assert metrics.top_k_accuracy(logits, units, 1) <= metrics.accuracy(
        predictions, units
    )


@pytest.mark.parametrize(
    ("predictions", "units", "match"),
    [
        ([], [], "at least one"),
        ([0, 1], [0], "2 predictions for 1 units"),
        ([[0], [1]], [0, 1], r"shape \(2, 1\)"),
        ([[0.1, 0.9]], [1], "argmax"),
        ([0.0, 1.0], [0, 1], "dtype float64"),
        (["a"], ["a"], "not labels"),
    ],
)
def test_anything_but_a_pair_of_unit_vectors_is_an_error(
    predictions, units, match
):
    with pytest.raises(ValueError, match=match):
        metrics.accuracy(predictions, units)


@pytest.mark.parametrize("unit", [-1, 3])
def test_unit_out_of_range_is_an_error(unit):
    with pytest.raises(ValueError, match=rf"{unit}, expected .*\[0, 3\)"):
        metrics.confusion_matrix([unit], [0], 3)
    with pytest.raises(ValueError, match="predictions"):
        metrics.confusion_matrix([0], [unit], 3)
    with pytest.raises(ValueError, match="units"):
        metrics.top_k_accuracy([[0.0, 1.0, 2.0]], [unit])
    with pytest.raises(ValueError, match="units"):
        metrics.per_task_accuracy([0], [unit], [0, 0, 1])


@pytest.mark.parametrize("k", [0, -1, 2.5])
def test_k_below_one_is_an_error(k):
    with pytest.raises(ValueError, match=f"k={k}"):
        metrics.top_k_accuracy([[0.0, 1.0]], [0], k)


def test_logits_of_another_number_of_samples_are_an_error():
    with pytest.raises(ValueError, match=r"\(1, 2\) and units \(2,\)"):
        metrics.top_k_accuracy([[0.0, 1.0]], [0, 1])


def test_metrics_import_numpy_alone():
    imported = set()
    for path in pathlib.Path(metrics.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module)
    outside = {n for n in imported if not n.startswith("keras_incremental.")}
    packages = {name.partition(".")[0] for name in outside}
    assert packages - sys.stdlib_module_names == {"numpy"}
    assert all(
        name.startswith("keras_incremental.metrics")
        for name in imported - outside
    )


def test_task_aware_predictions_by_hand():
    # Unit 0 wins everywhere, but competes in task 0 alone; tasks may be of
    # one unit, and units of a task need not lie together.
    logits = [[9.0, 5.0, 2.0, 3.0]] * 4
    predictions = metrics.task_aware_predictions(
        logits, [0, 1, 2, 3], [0, 1, 0, 2]
    )
    assert predictions.tolist() == [0, 1, 0, 3]
    assert predictions.dtype == np.int64
    accuracy = metrics.per_task_accuracy(
        predictions, [0, 1, 2, 3], [0, 1, 0, 2]
    )
    assert accuracy.tolist() == [0.5, 1.0, 1.0]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(1, 20), st.integers(1, 4), SEEDS)
def test_task_aware_predictions_equal_plain_loops(
    classes, samples, tasks, seed
):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(samples, classes))
    units = rng.integers(0, classes, samples)
    task_of_unit = rng.integers(0, tasks, classes)
    expected = []
    for row, unit in zip(logits, units, strict=True):
        own = [
            c for c in range(classes) if task_of_unit[c] == task_of_unit[unit]
        ]
        expected.append(max(own, key=lambda c, row=row: row[c]))
    predictions = metrics.task_aware_predictions(logits, units, task_of_unit)
    assert predictions.tolist() == expected


def test_task_aware_predictions_of_one_task_are_the_plain_ones():
    logits = np.random.default_rng(0).normal(size=(9, 4))
    np.testing.assert_array_equal(
        metrics.task_aware_predictions(logits, [3] * 9, [5] * 4),
        logits.argmax(axis=1),
    )


@pytest.mark.parametrize(
    ("logits", "units", "task_of_unit", "match"),
    [
        ([[0.0, 1.0]], [0, 1], [0, 1], "2 samples by 2 classes"),
        ([[0.0, 1.0]], [0], [0, 1, 1], "1 samples by 3 classes"),
        ([[0.0, 1.0]], [2], [0, 1], r"units contains 2, .*\[0, 2\)"),
        ([[0.0, 1.0]], [0.0], [0, 1], "dtype float64"),
    ],
)
def test_task_aware_predictions_refuse_what_does_not_fit(
    logits, units, task_of_unit, match
):
    with pytest.raises(ValueError, match=match):
        metrics.task_aware_predictions(logits, units, task_of_unit)
