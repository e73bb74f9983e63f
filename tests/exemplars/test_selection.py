"""Selection against a slow, plain NumPy version."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_incremental.exemplars import selection
from keras_incremental.exemplars.selection import (
    herding_order,
    nearest_to_mean_order,
    random_order,
)


def plain_gaps(features, chosen):
    """iCaRL Alg. 4, one choice: each sample's distance, a loop over samples."""
    unit = [f / np.linalg.norm(f) for f in features]
    mean = sum(unit) / len(unit)
    gaps = {}
    for i, f in enumerate(unit):
        if i not in chosen:
            total = f + sum(unit[j] for j in chosen)
            gaps[i] = np.linalg.norm(mean - total / (len(chosen) + 1))
    return gaps


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 25), st.integers(2, 8), st.integers(0, 2**31))
def test_each_choice_of_herding_is_the_best_of_the_plain_algorithm(
    samples, dim, seed
):
    features = np.random.default_rng(seed).normal(size=(samples, dim))
    order = herding_order(features, samples).tolist()
    assert sorted(order) == list(range(samples))
    for k, best in enumerate(order):
        # Two samples may be equally near; either is right.
        gaps = plain_gaps(features, order[:k])
        assert gaps[best] <= min(gaps.values()) + 1e-9


def test_herding_by_hand():
    # Mean direction is [1, 1]: the diagonal sample first, then, of the two
    # left, both equally far: the lower index; zero-length gaps at the end.
    features = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    assert herding_order(features, 3).tolist() == [1, 0, 2]


def test_herding_normalises_samples_and_not_features():
    # The long sample points away; were lengths kept, it would pull the mean
    # to itself and come first.
    features = np.array([[1.0, 0.1], [1.0, -0.1], [0.0, 100.0], [1.0, 0.0]])
    assert herding_order(features, 4).tolist()[-1] != 3
    scaled = features * np.array([[5.0], [0.2], [1.0], [7.0]])
    assert (herding_order(scaled, 4) == herding_order(features, 4)).all()


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([herding_order, random_order, nearest_to_mean_order]),
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(0, 1000),
)
def test_any_prefix_is_the_selection_of_that_size(
    selection, samples, count, seed
):
    features = np.random.default_rng(seed).normal(size=(samples, 5))
    whole = selection(features, samples, seed).tolist()
    assert sorted(whole) == list(range(samples))
    assert selection(features, count, seed).tolist() == whole[:count]


def test_nearest_to_mean_is_sorted_by_distance():
    features = np.random.default_rng(0).normal(size=(20, 4))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distance = np.linalg.norm(unit - unit.mean(axis=0), axis=1)
    order = nearest_to_mean_order(features, 20)
    assert (np.diff(distance[order]) >= 0).all()


def test_random_order_differs_by_seed_and_repeats_for_one():
    features = np.zeros((50, 1))
    one, two = random_order(features, 50, 1), random_order(features, 50, 2)
    assert (one != two).any()
    assert (one == random_order(features, 50, 1)).all()


@pytest.mark.slow
@pytest.mark.timed
def test_herding_of_5000_samples_takes_well_under_a_second():
    features = np.random.default_rng(0).random((5000, 512), "float32")
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert len(herding_order(features, 200)) == 200
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5


class Counted(np.ndarray):
    """An array that counts the multiplications of its operations."""

    count = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [
            x.view(np.ndarray) if isinstance(x, Counted) else x for x in inputs
        ]
        outputs = {} if out is None else {"out": (out[0].view(np.ndarray),)}
        result = getattr(ufunc, method)(*plain, **outputs, **options)
        shared = plain[0].shape[-1] if ufunc is np.matmul else 1
        Counted.count += np.size(result) * shared
        if out is not None:
            return out[0]
        is_array = isinstance(result, np.ndarray)
        return result.view(Counted) if is_array else result

    def dot(self, other):  # no ufunc, but the same product
        return self @ other


def operations_of_herding(monkeypatch, samples, chosen, dim=16):
    features = np.random.default_rng(0).random((samples, dim))
    monkeypatch.setattr(
        selection, "check_features", lambda given: given.view(Counted)
    )
    Counted.count = 0
    herding_order(features, chosen)
    return Counted.count


def test_operations_of_herding_grow_linearly_with_samples_and_chosen(
    monkeypatch,
):
    def operations(samples, chosen):
        return operations_of_herding(monkeypatch, samples, chosen)

    # A choice costs the same whether it is an early or a late one ...
    of_10, of_20, of_40 = (operations(1000, k) for k in (10, 20, 40))
    assert of_40 - of_20 == 2 * (of_20 - of_10)
    # ... one product of all samples with one vector, and little else.
    a_choice = (of_20 - of_10) / 10
    assert 1000 * 16 <= a_choice <= 1.1 * 1000 * 16
    first = operations(1000, 20) - operations(500, 20)
    assert operations(2000, 20) - operations(1000, 20) == 2 * first


def test_zero_features_are_ranked_without_a_nan():
    assert sorted(herding_order(np.zeros((4, 3)), 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros(3), r"\(samples, dim\)"),
        (np.array([[np.nan, 0.0]]), "training diverged"),
    ],
)
def test_bad_features_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        herding_order(features, 1)
