"""Sums and what is solved from them, against plain sums over images."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from keras_incremental.closed_form import (
    LDA,
    NearestClassMean,
    Ridge,
    Sums,
)

DIM = 5
SOLVERS = [Ridge(0.1), LDA(30), NearestClassMean()]


def images(seed, count, classes):
    random = np.random.default_rng(seed)
    units = np.r_[np.arange(classes), random.integers(classes, size=count)]
    means = random.normal(size=(classes, DIM))
    return means[units] + random.normal(size=(len(units), DIM)), units


def added(features, units, parts, classes, by_class=True):
    sums = Sums.none(DIM, by_class)
    for part in parts:
        sums = sums.plus(features[part], units[part], classes)
    return sums


@hypothesis.given(st.integers(0, 99), st.integers(0, 40), st.integers(1, 6))
@hypothesis.settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("by_class", [True, False])
def test_any_split_and_order_gives_the_sums_of_all(by_class, seed, count, k):
    features, units = images(seed, count, 3)
    order = np.random.default_rng(seed).permutation(len(units))
    sums = added(features, units, np.array_split(order, k), 3, by_class)
    np.testing.assert_allclose(sums.gram(), features.T @ features, atol=1e-10)
    np.testing.assert_array_equal(sums.counts, np.bincount(units))
    centred = features - sums.means()[units]
    np.testing.assert_allclose(sums.scatter(), centred.T @ centred, atol=1e-10)
    rows = [len(factor) for factor in sums.factors]
    assert max(rows) <= max(DIM, 1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_any_split_gives_the_joint_solution(solver):
    features, units = images(0, 60, 4)
    joint = solver.solve(added(features, units, [np.arange(64)], 4))
    parts = [np.flatnonzero(units == unit) for unit in range(4)]
    split = solver.solve(added(features, units, parts, 4))
    for one, other in zip(joint, split, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_class_that_is_taken_out_was_never_there(solver):
    features, units = images(1, 60, 4)
    sums = added(features, units, [np.arange(64)], 4).without([1])
    kept = units != 1
    moved = np.where(units > 1, units - 1, units)[kept]
    never = added(features[kept], moved, [np.arange(kept.sum())], 3)
    for one, other in zip(solver.solve(sums), solver.solve(never), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)


def test_sums_of_all_classes_take_less_room_and_give_none_back():
    features, units = images(0, 60, 4)
    apart = added(features, units, [np.arange(64)], 4)
    together = added(features, units, [np.arange(64)], 4, by_class=False)
    assert together.nbytes < apart.nbytes
    with pytest.raises(ValueError, match="forgettable"):
        together.without([0])


def test_ridge_is_that_of_its_formula():
    features, units = images(2, 57, 3)
    kernel, bias = Ridge(0.3).solve(added(features, units, [np.arange(60)], 3))
    ones = np.c_[features, np.ones(60)]
    gram = sum(np.outer(row, row) for row in ones)
    target = np.zeros((DIM + 1, 3))
    for row, unit in zip(ones, units, strict=True):
        target[:, unit] += row / np.sum(units == unit)
    gram += 0.3 * np.trace(gram) / (DIM + 1) * np.eye(DIM + 1)
    weights = np.linalg.inv(gram) @ target * 20
    np.testing.assert_allclose(np.r_[kernel, bias[None]], weights, atol=1e-10)


def test_lda_is_that_of_its_formula():
    features, units = images(3, 57, 3)
    kernel, bias = LDA(42).solve(added(features, units, [np.arange(60)], 3))
    means = np.stack([features[units == unit].mean(0) for unit in range(3)])
    spread = features - means[units]
    covariance = sum(np.outer(row, row) for row in spread) / 60
    covariance += 42 / 60 * np.trace(covariance) / DIM * np.eye(DIM)
    shared = np.linalg.inv(covariance) @ means.mean(0)
    for unit, mean in enumerate(means):
        weights = np.linalg.inv(covariance) @ mean
        np.testing.assert_allclose(
            kernel[:, unit], weights - shared, atol=1e-10
        )
        own = -mean @ weights / 2
        assert bias[unit] == pytest.approx(own + means.mean(0) @ shared / 2)


def test_nearest_mean_decides_for_the_nearest():
    features, units = images(4, 57, 3)
    sums = added(features, units, [np.arange(60)], 3)
    kernel, bias = NearestClassMean().solve(sums)
    distances = np.linalg.norm(features[:, None] - sums.means(), axis=-1)
    np.testing.assert_array_equal(
        (features @ kernel + bias).argmax(1), distances.argmin(1)
    )


@pytest.mark.parametrize(("count", "near"), [(5, True), (5000, False)])
def test_lda_of_few_images_is_the_nearest_mean(count, near):
    features, units = images(0, count, 2)
    features[:, 0] += 5 * features[:, 1]
    sums = added(features, units, [np.arange(len(units))], 2)
    directions = [
        (kernel[:, 1] - kernel[:, 0])
        / np.linalg.norm(kernel[:, 1] - kernel[:, 0])
        for kernel, _ in (LDA().solve(sums), NearestClassMean().solve(sums))
    ]
    cosine = directions[0] @ directions[1]
    assert cosine > 0.999 if near else cosine < 0.9


def test_features_that_are_all_0_have_a_solution():
    sums = added(np.zeros((4, DIM)), np.array([0, 0, 1, 1]), [np.arange(4)], 2)
    for solver in SOLVERS:
        assert all(np.isfinite(part).all() for part in solver.solve(sums))


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_numbers_that_cannot_be_are_refused(value):
    with pytest.raises(ValueError, match="above 0"):
        Ridge(value)
    with pytest.raises(ValueError, match="above 0"):
        LDA(value)
