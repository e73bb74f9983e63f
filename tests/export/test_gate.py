"""What a gate lets out."""

import types

import pytest

from keras_incremental.export import Gate


def report(before, old, new):
    return types.SimpleNamespace(
        old_accuracy_before=before, old_accuracy=old, new_accuracy=new
    )


@pytest.mark.parametrize(
    ("before", "old", "new", "is_open"),
    [
        (0.90, 0.90, 0.60, True),
        (0.90, 0.95, 0.99, True),
        (0.90, 0.88, 0.60, True),  # 0.9 - 0.88 is 0.02 and a rounding
        (0.90, 0.87, 0.99, False),
        (0.90, 0.90, 0.59, False),
        (None, None, 0.70, True),
        (None, None, 0.50, False),
        (0.90, 0.89, None, True),
    ],
)
def test_both_bounds_hold(before, old, new, is_open):
    gate = Gate(max_old_accuracy_drop=0.02, min_new_accuracy=0.6)
    refusal = gate.refusal(report(before, old, new))
    assert (refusal is None) == is_open


def test_a_refusal_names_the_figures():
    gate = Gate(max_old_accuracy_drop=0.02, min_new_accuracy=0.6)
    refusal = gate.refusal(report(0.9, 0.7, 0.5))
    for figure in ("90.0%", "70.0%", "2.0%", "50.0%", "60.0%"):
        assert figure in refusal


def test_a_bound_that_is_not_given_allows_all():
    assert Gate(min_new_accuracy=0.5).refusal(report(0.9, 0.0, 0.5)) is None
    gate = Gate(max_old_accuracy_drop=0.1)
    assert gate.refusal(report(0.9, 0.9, 0.0)) is None


@pytest.mark.parametrize("bound", [-0.1, 1.5, 60, "0.6", float("nan")])
def test_bounds_that_are_no_shares_are_refused(bound):
    with pytest.raises(ValueError, match="min_new_accuracy="):
        Gate(min_new_accuracy=bound)


def test_a_gate_without_a_bound_is_refused():
    with pytest.raises(ValueError, match="max_old_accuracy_drop"):
        Gate()
