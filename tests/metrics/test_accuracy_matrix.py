"""`AccuracyMatrix` owns one row of accuracies for each task."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_incremental.metrics import AccuracyMatrix


def recorded(rows):
    matrix = AccuracyMatrix()
    for row in rows:
        matrix.record(row)
    return matrix


def test_values_are_nan_above_the_diagonal():
    values = recorded([[0.9], [0.6, 0.8]]).values
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, [[0.9, np.nan], [0.6, 0.8]])


def test_list_is_json_with_null_above_the_diagonal():
    text = json.dumps(recorded([[1], np.float32([0.5, 0.25])]).to_list())
    assert text == "[[1.0, null], [0.5, 0.25]]"


def test_nothing_recorded_is_an_empty_matrix():
    assert AccuracyMatrix().values.shape == (0, 0)
    assert AccuracyMatrix().to_list() == []


def test_changing_what_was_passed_or_returned_changes_no_record():
    row = np.array([0.5])
    matrix = recorded([row])
    row[0] = 0.0
    matrix.values[0, 0] = 0.0
    matrix.to_list()[0][0] = 0.0
    assert matrix.to_list() == [[0.5]]


@pytest.mark.parametrize("row", [[], [0.5, 0.5], 0.5, [[0.5]]])
def test_row_of_another_length_is_an_error(row):
    with pytest.raises(ValueError, match=r"expected \(1,\)"):
        AccuracyMatrix().record(row)


@pytest.mark.parametrize("value", [-0.1, 1.01, 97.0, np.nan])
def test_value_outside_0_to_1_is_an_error_and_not_recorded(value):
    matrix = recorded([[0.5]])
    with pytest.raises(ValueError, match="Divide percentages by 100"):
        matrix.record([0.5, value])
    assert matrix.to_list() == [[0.5]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.randoms(use_true_random=False))
def test_list_and_values_agree(tasks, random):
    rows = [[random.random() for _ in range(t + 1)] for t in range(tasks)]
    matrix = recorded(rows)
    from_list = np.array(matrix.to_list(), dtype=np.float64)
    np.testing.assert_array_equal(from_list, matrix.values)
    for task, row in enumerate(rows):
        assert matrix.values[task, : task + 1].tolist() == row
        assert np.isnan(matrix.values[task, task + 1 :]).all()
