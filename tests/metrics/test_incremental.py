"""Metrics of a sequence of tasks, against values computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_incremental import metrics

NAN = float("nan")
THREE_TASKS = [[0.9, NAN, NAN], [0.6, 0.8, NAN], [0.5, 0.7, 0.9]]


def test_average_counts_the_first_task():
    # (0.9 + 0.6 + 0.3) / 3
    average = metrics.average_incremental_accuracy([0.9, 0.6, 0.3])
    assert average == pytest.approx(0.6)
    assert metrics.average_incremental_accuracy(np.array([0.7])) == 0.7


def test_average_after_first_leaves_the_first_task_out():
    # (0.6 + 0.3) / 2
    average = metrics.average_incremental_accuracy_after_first([0.9, 0.6, 0.3])
    assert average == pytest.approx(0.45)


def test_average_after_first_of_one_task_is_nan():
    average = metrics.average_incremental_accuracy_after_first([0.9])
    assert math.isnan(average)


@pytest.mark.parametrize(
    "average",
    [
        metrics.average_incremental_accuracy,
        metrics.average_incremental_accuracy_after_first,
    ],
)
@pytest.mark.parametrize("wrong", [[], 0.5, [[0.5]], [0.5, 55.0], [NAN]])
def test_averages_of_anything_but_accuracies_are_errors(average, wrong):
    with pytest.raises(ValueError, match="accuracies"):
        average(wrong)


def test_forgetting_of_the_example_is_a_quarter():
    # ((max(0.9, 0.6) - 0.5) + (0.8 - 0.7)) / 2 = (0.4 + 0.1) / 2
    assert metrics.forgetting(THREE_TASKS) == pytest.approx(0.25)


def test_forgetting_starts_from_the_best_not_the_first_accuracy():
    # ((max(0.6, 0.9) - 0.5) + (0.8 - 0.7)) / 2; first minus last: 0.10
    rows = [[0.6, None, None], [0.9, 0.8, None], [0.5, 0.7, 0.9]]
    assert metrics.forgetting(rows) == pytest.approx(0.25)


def test_forgetting_is_negative_if_an_old_task_became_better():
    assert metrics.forgetting([[0.5, NAN], [0.75, 0.9]]) == -0.25


def test_backward_transfer_starts_from_the_first_accuracy():
    # ((0.5 - 0.9) + (0.7 - 0.8)) / 2
    assert metrics.backward_transfer(THREE_TASKS) == pytest.approx(-0.25)
    # ((0.5 - 0.6) + (0.7 - 0.8)) / 2
    rows = [[0.6, None, None], [0.9, 0.8, None], [0.5, 0.7, 0.9]]
    assert metrics.backward_transfer(rows) == pytest.approx(-0.1)


@pytest.mark.parametrize(
    "metric", [metrics.forgetting, metrics.backward_transfer]
)
class TestMatrixMetrics:
    def test_one_task_gives_zero(self, metric):
        assert metric([[0.9]]) == 0.0

    def test_array_and_list_of_the_owner_agree(self, metric):
        matrix = metrics.AccuracyMatrix()
        for row in ([0.9], [0.6, 0.8], [0.5, 0.75, 0.9]):
            matrix.record(row)
        assert metric(matrix.values) == metric(matrix.to_list())

    def test_above_the_diagonal_is_not_read_nor_changed(self, metric):
        full = np.array([[0.5, 1.0], [0.25, 0.5]])
        assert metric(full) == metric([[0.5, None], [0.25, 0.5]])
        assert full[0, 1] == 1.0

    @pytest.mark.parametrize(
        "wrong",
        [
            [],
            [0.5],
            [[0.5, None]],
            [[0.5, None], [NAN, 0.5]],
            [[50.0, None], [40.0, 60.0]],
        ],
    )
    def test_anything_but_a_matrix_of_accuracies_is_an_error(
        self, metric, wrong
    ):
        with pytest.raises(ValueError, match="accuracy_matrix"):
            metric(wrong)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_matrix_metrics_equal_the_formulas_as_loops(tasks, seed):
    values = np.random.default_rng(seed).random((tasks, tasks))
    last, lost, transferred = tasks - 1, 0.0, 0.0
    for i in range(last):
        lost += max(values[t, i] for t in range(i, last)) - values[last, i]
        transferred += values[last, i] - values[i, i]
    assert metrics.forgetting(values) == pytest.approx(lost / last)
    assert metrics.backward_transfer(values) == pytest.approx(
        transferred / last
    )
    assert metrics.forgetting(values) >= -metrics.backward_transfer(values)
