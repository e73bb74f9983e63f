"""Scales and biases of branches, against plain NumPy and hand-made cases."""

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_incremental.methods.calibration import fit_calibration

RIDGE = 1e-3


def objective(parameters, logits, units, branch_of_unit, ridge=RIDGE):
    """The formula of the docstring, sample by sample."""
    scales, biases = np.split(np.asarray(parameters, float), 2)
    of_class = {}
    for row, unit in zip(logits, units, strict=True):
        z = [
            scales[branch] * value + biases[branch]
            for value, branch in zip(row, branch_of_unit, strict=True)
        ]
        log_sum = max(z) + np.log(np.sum(np.exp(np.subtract(z, max(z)))))
        of_class.setdefault(unit, []).append(log_sum - z[unit])
    loss = np.mean([np.mean(losses) for losses in of_class.values()])
    return loss + ridge * (np.sum((scales - 1) ** 2) + np.sum(biases**2))


@st.composite
def problems(draw):
    """Logits, units and branches of a few classes, some of them absent."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=2, max_size=3))
    branch_of_unit = np.repeat(np.arange(len(sizes)), sizes)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    samples = draw(st.integers(3, 15))
    logits = random.normal(0, 3, (samples, len(branch_of_unit)))
    units = random.integers(0, len(branch_of_unit), samples)
    logits[np.arange(samples), units] += draw(st.sampled_from([-1.0, 0.5, 2]))
    return logits, units, branch_of_unit


def test_a_sure_branch_does_not_drown_the_other_by_hand():
    # All logits are 0, so the bias d = c0 - c1 alone decides between class 0
    # (the base's only one) and classes 1, 2, 3: p0 = e^d / (e^d + 3) and
    # p1 = 1 / (e^d + 3). The mean of -log p0 and -log p1 is least where
    # p0 = 1/2: d = ln 3, and the ridge shares it equally: c = +-(ln 3)/2.
    scales, biases = fit_calibration(
        np.zeros((2, 4)), np.array([0, 1]), np.array([0, 1, 1, 1]), ridge=1e-6
    )
    half = np.log(3) / 2
    np.testing.assert_allclose(biases, [half, -half], atol=1e-3)
    np.testing.assert_allclose(scales, [1, 1])


def test_one_branch_too_loud_is_turned_down():
    # Branch 1 gives 10 for its own class and 9 for the other's images; the
    # base gives 2 and 0. Uncalibrated, all images go to branch 1.
    logits = np.array([[2.0, 9.0], [0.0, 10.0]] * 5)
    units = np.array([0, 1] * 5)
    assert (logits.argmax(axis=1) == 1).all()
    scales, biases = fit_calibration(logits, units, np.array([0, 1]))
    calibrated = logits * scales + biases
    assert calibrated.argmax(axis=1).tolist() == units.tolist()


@settings(max_examples=40, deadline=None)
@given(problems())
def test_never_worse_than_uncalibrated_and_scales_above_zero(problem):
    scales, biases = fit_calibration(*problem)
    branches = len(scales)
    uncalibrated = np.repeat([1.0, 0.0], branches)
    found = np.concatenate([scales, biases])
    assert objective(found, *problem) <= objective(uncalibrated, *problem)
    assert scales.min() > 0
    assert scales.shape == biases.shape == (problem[2].max() + 1,)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(problems())
def test_finds_the_minimum_that_a_slow_plain_optimiser_finds(problem):
    found = np.concatenate(fit_calibration(*problem))
    branches = len(found) // 2
    slow = scipy.optimize.minimize(  # gradients by finite differences
        objective,
        np.repeat([0.5, 0.1], branches),
        args=problem,
        bounds=[(1e-2, None)] * branches + [(None, None)] * branches,
        method="L-BFGS-B",
    )
    assert objective(found, *problem) == pytest.approx(slow.fun, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(problems(), st.integers(0, 2**32 - 1))
def test_the_objective_rises_in_every_direction(problem, seed):
    """Convex: no worse near by means no worse anywhere."""
    found = np.concatenate(fit_calibration(*problem))
    lowest = objective(found, *problem)
    random = np.random.default_rng(seed)
    for size in (1e-2, 1.0, 10.0):
        other = found + random.normal(0, size, found.shape)
        half = len(other) // 2
        other[:half] = np.maximum(other[:half], 1e-2)
        assert objective(other, *problem) >= lowest - 1e-5


def test_gradient_is_that_of_the_formula(monkeypatch):
    """The function that is minimised, and its gradient, as SciPy gets them."""
    random = np.random.default_rng(3)
    branch_of_unit = np.array([0, 0, 1, 2, 2])
    logits = random.normal(0, 2, (12, 5))
    units = random.integers(0, 5, 12)
    seen = {}

    def spy(function, start, **options):
        seen.update(function=function, start=start, options=options)
        return real(function, start, **options)

    real = scipy.optimize.minimize
    monkeypatch.setattr(scipy.optimize, "minimize", spy)
    fit_calibration(logits, units, branch_of_unit)
    assert seen["options"]["jac"] is True
    np.testing.assert_array_equal(seen["start"], [1, 1, 1, 0, 0, 0])
    for seed in range(3):
        point = np.random.default_rng(seed).uniform(0.5, 2, 6)
        value, gradient = seen["function"](point)
        assert value == pytest.approx(
            objective(point, logits, units, branch_of_unit)
        )
        assert gradient.shape == (6,)
        off = scipy.optimize.check_grad(
            lambda p: seen["function"](p)[0],
            lambda p: seen["function"](p)[1],
            point,
        )
        assert off < 1e-5


def test_every_class_weighs_the_same():
    random = np.random.default_rng(0)
    branch_of_unit = np.array([0, 0, 1, 1])
    logits, units = random.normal(0, 2, (8, 4)), np.arange(8) % 4
    once = fit_calibration(logits, units, branch_of_unit)
    of_class_0 = np.repeat(np.flatnonzero(units == 0), 9)
    rows = np.concatenate([np.arange(8), of_class_0])
    again = fit_calibration(logits[rows], units[rows], branch_of_unit)
    np.testing.assert_allclose(np.ravel(again), np.ravel(once), atol=2e-3)


def test_logits_that_are_always_wrong_keep_a_scale_above_zero():
    """A scale below zero would turn the order of a branch's classes round."""
    logits = np.array([[-9.0, 9.0, 0.0], [9.0, -9.0, 0.0], [0.0, 0.0, 1.0]] * 4)
    units = np.array([0, 1, 2] * 4)
    scales, _ = fit_calibration(logits, units, np.array([0, 0, 1]))
    assert 0 < scales[0] < 0.1


def test_separated_exemplars_give_finite_scales():
    logits = np.array([[50.0, -50.0], [-50.0, 50.0]] * 4)
    found = fit_calibration(logits, np.array([0, 1] * 4), np.array([0, 1]))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, [[1, 1], [0, 0]], atol=1e-2)


def test_half_precision_logits_and_int32_units_are_taken():
    logits = np.array([[2.0, 9.0], [0.0, 10.0]] * 5)
    units = np.array([0, 1] * 5)
    double = fit_calibration(logits, units, np.array([0, 1]))
    half = fit_calibration(
        logits.astype(np.float16), units.astype(np.int32), np.array([0, 1])
    )
    np.testing.assert_array_equal(half, double)
