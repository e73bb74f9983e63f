"""A phase refuses what could only fail once it is trained."""

import pytest

import keras_incremental as ki
from keras_incremental.methods import Phase


def test_sources_are_a_function():
    with pytest.raises(TypeError, match=r"'first'.*lambda: .task.samples"):
        Phase("first", 1, [])


@pytest.mark.parametrize("objective", [object(), ki.objectives.CrossEntropy])
def test_the_objective_is_one(objective):
    with pytest.raises(TypeError, match=r"'first' got objective.*Objective"):
        Phase("first", 1, list, objective)
