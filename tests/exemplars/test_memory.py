"""The exemplar memory: quotas, ranks, budget, files."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_incremental.exemplars import (
    ExemplarMemory,
    herding_order,
    random_order,
)
from keras_incremental.exemplars.ranking import rank_classes
from keras_incremental.samples import ArraySamples

SHAPE = (2, 2, 1)


def make_samples(counts, first=0, dtype="uint8"):
    """Images that carry their own running number, mixed over the classes."""
    labels = np.concatenate([[k] * n for k, n in counts.items()])
    labels = np.random.default_rng(1).permutation(labels)
    numbers = first + np.arange(len(labels))
    images = np.zeros((len(labels), *SHAPE), dtype)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = numbers % 256, numbers // 256
    return ArraySamples(images, labels)


def number_of(images):
    return images[:, 0, 0, 0].astype(int) + 256 * images[:, 0, 1, 0].astype(int)


def extract(images):
    """Features of a sample that depend on its number alone."""
    numbers = np.array(
        [number_of(i[None])[0] for i in images.as_numpy_iterator()]
    )
    return np.stack(
        [np.cos(numbers * 0.7), np.sin(numbers * 0.3), numbers % 7], 1
    )


def first_come(features, count, seed):
    return np.arange(len(features))[:count]


def last_come(features, count, seed):
    return np.arange(len(features))[::-1][:count]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.data())
def test_quotas_share_the_capacity_and_spend_the_remainder(capacity, data):
    classes = data.draw(st.integers(1, capacity))
    quotas = ExemplarMemory(capacity).quotas(classes)
    assert sum(quotas) == capacity
    assert max(quotas) - min(quotas) <= 1
    assert quotas == sorted(quotas, reverse=True)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(6, 60),
    st.lists(
        st.lists(st.integers(1, 20), min_size=1, max_size=2),
        min_size=1,
        max_size=3,
    ),
)
def test_memory_is_full_but_never_above_its_budget(capacity, tasks):
    memory = ExemplarMemory(capacity, selection=random_order)
    label, seen = 100, {}
    for sizes in tasks:
        counts = {label + i: n for i, n in enumerate(sizes)}
        label += len(sizes)
        before = {k: memory.images(k) for k in memory.labels}
        memory.update(make_samples(counts), extract)
        seen.update(counts)
        assert len(memory) <= capacity
        quotas = dict(zip(memory.labels, memory.quotas(len(seen)), strict=True))
        for k, images in before.items():
            # The rank is kept: what is left is the head of the old list.
            np.testing.assert_array_equal(memory.images(k), images[: quotas[k]])
    for k in counts:
        assert len(memory.images(k)) == min(quotas[k], seen[k])


def test_remainder_goes_to_the_classes_that_came_first():
    memory = ExemplarMemory(10, selection=first_come)
    memory.update(make_samples({5: 9, 1: 9, 3: 9}), extract)
    assert [len(memory.images(k)) for k in memory.labels] == [4, 3, 3]
    memory.update(make_samples({7: 9}), extract)
    assert [len(memory.images(k)) for k in memory.labels] == [3, 3, 2, 2]


def test_per_class_budget_grows_with_the_classes():
    memory = ExemplarMemory(per_class=4, selection=first_come)
    memory.update(make_samples({0: 9, 1: 3}), extract)
    memory.update(make_samples({2: 9}), extract)
    assert {k: len(memory.images(k)) for k in (0, 1, 2)} == {0: 4, 1: 3, 2: 4}
    assert len(memory) == 11


def test_images_are_stored_raw_in_the_order_of_the_ranking():
    samples = make_samples({0: 6}, dtype="uint8")

    def backwards(features, count, seed):
        return np.arange(len(features))[::-1][:count]

    memory = ExemplarMemory(4, selection=backwards)
    memory.update(samples, extract)
    assert memory.images(0).dtype == np.uint8
    assert number_of(memory.images(0)).tolist() == [5, 4, 3, 2]


def test_more_data_of_a_known_class_competes_with_its_exemplars():
    memory = ExemplarMemory(per_class=3, selection=first_come)
    memory.update(make_samples({0: 2}), extract)
    memory.update(make_samples({0: 5}, first=50), extract)
    # First come: the two stored ones, then the first new one.
    assert number_of(memory.images(0)).tolist() == [0, 1, 50]
    memory = ExemplarMemory(per_class=3, selection=last_come)
    memory.update(make_samples({0: 2}), extract)
    memory.update(make_samples({0: 2}, first=50), extract)
    assert number_of(memory.images(0)).tolist() == [51, 50, 0]


def test_selection_sees_each_class_apart_and_a_seed_of_its_own():
    calls = []

    def spy(features, count, seed):
        calls.append((len(features), count, tuple(np.ravel(seed))))
        return np.arange(min(count, len(features)))

    memory = ExemplarMemory(6, selection=spy, seed=3)
    memory.update(make_samples({0: 4, 1: 5}), extract)
    assert sorted(call[0] for call in calls) == [4, 5]
    assert len({call[2] for call in calls}) == 2


def test_samples_have_the_users_labels_and_raw_images():
    memory = ExemplarMemory(per_class=2, selection=first_come)
    memory.update(make_samples({300: 3, 7: 3}), extract)
    samples = memory.samples()
    assert len(samples) == len(memory) == int(samples.images().cardinality())
    assert samples.labels.tolist() == np.repeat(memory.labels, 2).tolist()
    first = next(iter(samples.images()))
    assert first.shape == SHAPE and first.dtype == np.uint8


def test_less_than_an_image_a_class_is_refused_before_training():
    memory = ExemplarMemory(4)
    memory.update(make_samples({0: 3, 1: 3}), extract)
    memory.check_room([0, 2, 3, 3])
    with pytest.raises(ValueError, match="Use capacity >= 5"):
        memory.check_room([0, 2, 3, 4])
    assert set(memory.labels) == {0, 1}


def test_stored_images_are_copies():
    samples = make_samples({0: 3})
    memory = ExemplarMemory(3, selection=first_come)
    memory.update(samples, extract)
    samples.all_images()[:] = 99
    assert number_of(memory.images(0)).tolist() == [0, 1, 2]


def test_an_error_in_an_update_changes_nothing():
    memory = ExemplarMemory(3, selection=first_come)
    memory.update(make_samples({0: 3}), extract)
    with pytest.raises(ValueError, match="Use capacity >= 4"):
        memory.update(make_samples({1: 2, 2: 2, 3: 2}), extract)
    with pytest.raises(ValueError, match="float32"):
        memory.update(make_samples({1: 2}, dtype="float32"), extract)

    def diverged(images):
        return np.full((2, 3), np.nan)

    with pytest.raises(ValueError, match="diverged"):
        memory.update(make_samples({1: 2}), diverged)
    assert memory.labels == [0] and len(memory) == 3


@pytest.mark.parametrize(
    "arguments",
    [{}, {"capacity": 1, "per_class": 1}, {"capacity": 0}, {"per_class": 1.5}],
)
def test_a_bad_budget_is_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        ExemplarMemory(**arguments)


def test_unknown_class_empty_memory_and_bad_selection_are_errors():
    memory = ExemplarMemory(3)
    with pytest.raises(KeyError, match="no class 4"):
        memory.images(4)
    with pytest.raises(ValueError, match="empty"):
        memory.samples()
    with pytest.raises(TypeError, match="herding_order"):
        ExemplarMemory(3, selection="herding")


@pytest.mark.parametrize("labels", [(300, 7), ("ram", "été")])
def test_saved_memory_loads_the_same(tmp_path, labels):
    memory = ExemplarMemory(5, selection=random_order, seed=4)
    memory.update(make_samples(dict.fromkeys(labels, 4)), extract)
    memory.save(tmp_path / "memory")
    again = ExemplarMemory.load(tmp_path / "memory")
    assert (again.capacity, again.per_class, again.seed) == (5, None, 4)
    assert again.selection is random_order
    assert again.labels == memory.labels
    for label in labels:
        np.testing.assert_array_equal(again.images(label), memory.images(label))
    memory.save(tmp_path / "memory")  # over the old one
    assert len(ExemplarMemory.load(tmp_path / "memory")) == 5


def test_empty_memory_and_own_selection_load(tmp_path):
    ExemplarMemory(per_class=5, selection=first_come).save(tmp_path / "m")
    with pytest.raises(ValueError, match="selection="):
        ExemplarMemory.load(tmp_path / "m")
    again = ExemplarMemory.load(tmp_path / "m", selection=first_come)
    assert again.per_class == 5 and len(again) == 0


def test_image_spec_is_that_of_the_exemplars():
    memory = ExemplarMemory(4)
    assert memory.image_spec is None
    memory.update(make_samples({0: 6}), extract)
    assert memory.image_spec == tf.TensorSpec(SHAPE, tf.uint8)


def unwanted(images):
    raise AssertionError("features were computed although they were passed")


def test_features_at_hand_choose_what_extracted_ones_choose():
    samples = make_samples({0: 9, 1: 12})
    extracted, at_hand = ExemplarMemory(7), ExemplarMemory(7)
    extracted.update(samples, extract)
    at_hand.update(samples, unwanted, features=extract(samples.images()))
    for label in (0, 1):
        np.testing.assert_array_equal(
            at_hand.images(label), extracted.images(label)
        )
    picked = rank_classes(
        ExemplarMemory(7),
        samples,
        unwanted,
        {0: 2, 1: 2},
        features=extract(samples.images()),
    )
    np.testing.assert_array_equal(picked[0].decoded(), extracted.images(0)[:2])


def test_features_of_exemplars_take_part_when_new_images_compete():
    """The ranking of exemplars and new images is that of all of them."""
    both, seen = make_samples({0: 30}), []

    def spy(features, count, seed):
        seen.append(features)
        return herding_order(features, count)

    first, second = (
        ArraySamples(both.all_images()[part], both.labels[part])
        for part in (slice(8), slice(8, None))
    )
    memory = ExemplarMemory(per_class=8, selection=spy)
    memory.update(first, extract)
    exemplars = memory.images(0)
    memory.update(second, extract)
    candidates = np.concatenate([exemplars, second.all_images()])
    features = extract(tf.data.Dataset.from_tensor_slices(candidates))
    np.testing.assert_array_equal(seen[-1], features)
    assert np.ptp(seen[-1][:8], axis=0).min() > 0.1
    expected = candidates[herding_order(features, 8)]
    np.testing.assert_array_equal(memory.images(0), expected)
    kept = set(number_of(memory.images(0)))
    assert kept & set(number_of(exemplars))
    assert kept & set(number_of(second.all_images()))


def test_features_at_hand_are_those_of_the_new_images_alone():
    """The exemplars of a class that comes again need theirs computed."""
    counts = []

    def counting(images):
        features = extract(images)
        counts.append(len(features))
        return features

    first, again = make_samples({0: 9}), make_samples({0: 8}, first=50)
    at_hand, extracted = ExemplarMemory(5), ExemplarMemory(5)
    for memory in (at_hand, extracted):
        memory.update(first, extract)
    extracted.update(again, extract)
    at_hand.update(again, counting, features=extract(again.images()))
    assert counts == [5]
    np.testing.assert_array_equal(at_hand.images(0), extracted.images(0))


def test_features_that_are_not_finite_change_nothing():
    memory = ExemplarMemory(5)
    memory.update(make_samples({0: 9}), extract)
    before = memory.images(0)
    samples = make_samples({1: 9})
    with pytest.raises(ValueError, match="diverged"):
        memory.update(samples, extract, features=np.full((9, 3), np.nan))
    assert memory.labels == [0]
    np.testing.assert_array_equal(memory.images(0), before)


@pytest.mark.parametrize("rows", [8, 10])
def test_features_for_another_number_of_images_are_refused(rows):
    memory = ExemplarMemory(5)
    with pytest.raises(ValueError, match=f"{rows} rows of features for 9"):
        memory.update(
            make_samples({1: 9}), extract, features=np.ones((rows, 3))
        )
    assert len(memory) == 0
