"""A budget in bytes: never exceeded, shared equally, spent by rank."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_incremental.exemplars import (
    DiskStorage,
    ExemplarMemory,
    JpegStorage,
    PngStorage,
    RawStorage,
    balanced_samples,
)
from keras_incremental.exemplars.budget import Budget
from keras_incremental.samples import ArraySamples, StreamedSamples

SHAPE = (8, 8, 3)
RAW_BYTES = 8 * 8 * 3
SPEC = tf.TensorSpec(SHAPE, "uint8")


def first_come(features, count, seed):
    return np.arange(len(features))[:count]


def images_of(count, seed):
    """From blank to noise, so that encoded sizes differ widely."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (count, *SHAPE))
    strength = random.random((count, 1, 1, 1)) ** 2
    return (noise * strength).astype("uint8")


def samples_of(counts, seed=0):
    labels = np.repeat(list(counts), list(counts.values()))
    labels = np.random.default_rng(seed).permutation(labels)
    return ArraySamples(images_of(len(labels), seed), labels)


def extract(images):
    return np.ones((sum(1 for _ in images), 2))


def update(memory, samples):
    features = np.ones((len(samples), 2), "float32")
    memory.update(samples, extract, features=features)


def streamed(samples):
    data = tf.data.Dataset.from_tensor_slices(
        (samples.all_images(), samples.labels)
    )
    return StreamedSamples(data.batch(5), samples.labels)


tasks = st.lists(
    st.lists(st.integers(1, 12), min_size=1, max_size=2),
    min_size=1,
    max_size=3,
)


@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize(
    "storage",
    [RawStorage(), PngStorage(), JpegStorage(70), DiskStorage()],
    ids=str,
)
@given(budget=st.integers(6 * 800, 9000), tasks=tasks)
def test_what_is_stored_never_exceeds_the_budget(storage, budget, tasks):
    memory, label = ExemplarMemory(budget=budget, storage=storage), 0
    for seed, sizes in enumerate(tasks):
        counts = {label + i: n for i, n in enumerate(sizes)}
        label += len(sizes)
        update(memory, samples_of(counts, seed))
        stored = memory.stored().values()
        content = [
            storage.to_bytes(row) for part in stored for row in part.rows
        ]
        assert sum(map(len, content)) == memory.nbytes <= budget
        assert len(memory.labels_with_exemplars()) == label


@settings(max_examples=25, deadline=None)
@given(budget=st.integers(6 * RAW_BYTES, 40 * RAW_BYTES), tasks=tasks)
def test_raw_bytes_are_a_capacity_of_so_many_images(budget, tasks):
    in_bytes = ExemplarMemory(budget=budget)
    in_images = ExemplarMemory(capacity=budget // RAW_BYTES)
    label = 0
    for seed, sizes in enumerate(tasks):
        counts = {label + i: n for i, n in enumerate(sizes)}
        label += len(sizes)
        for memory in (in_bytes, in_images):
            update(memory, samples_of(counts, seed))
        for k in range(label):
            np.testing.assert_array_equal(
                in_bytes.images(k), in_images.images(k)
            )


def dealt(ranked, storage, budget):
    """The plain way: in turns, the best of each class first, while it fits."""
    rows = [storage.encode(images) for images in ranked]
    kept, total = [[] for _ in rows], 0
    for turn in range(max(map(len, rows))):
        for mine, all_of_class in zip(kept, rows, strict=True):
            if turn < len(all_of_class):
                total += len(all_of_class[turn])
                if total > budget:
                    return kept
                mine.append(all_of_class[turn])
    return kept


@pytest.mark.parametrize("as_stream", [False, True])
@pytest.mark.parametrize("storage", [PngStorage(), JpegStorage()], ids=str)
def test_classes_keep_their_best_images_in_turns(storage, as_stream):
    budget = 20_001
    memory = ExemplarMemory(budget=budget, storage=storage, selection=reverse)
    samples, more = samples_of({4: 150, 2: 90}), samples_of({7: 50}, seed=3)
    ranked = [
        data.all_images()[data.labels == label][::-1]
        for data, label in ((samples, 4), (samples, 2), (more, 7))
    ]
    for data, count in ((samples, 2), (more, 3)):
        update(memory, streamed(data) if as_stream else data)
        stored = [part.rows.tolist() for part in memory.stored().values()]
        assert stored == dealt(ranked[:count], storage, budget)
        sizes = [len(rows) for rows in stored]
        assert min(sizes) > 5 and max(sizes) - min(sizes) <= 1


def reverse(features, count, seed):
    return np.arange(len(features))[::-1][:count]


def test_only_what_may_be_kept_is_encoded():
    storage = PngStorage()
    encoded = []

    class Counting(PngStorage):
        def encode(self, images):
            encoded.append(len(images))
            return storage.encode(images)

    memory = ExemplarMemory(
        budget=2000, storage=Counting(), selection=first_come
    )
    update(memory, samples_of({0: 1000}))
    assert sum(encoded) < 200


def test_what_is_dealt_ends_at_the_first_image_that_does_not_fit():
    def deal(size, *sizes):
        return Budget(size=size).deal([np.array(part, int) for part in sizes])

    assert deal(10, [4, 4, 4, 1]) == [2]
    assert deal(8, [4, 4]) == [2]
    assert deal(12, [1, 5, 1], [2, 2, 1, 1]) == [3, 3]
    assert deal(11, [1, 5, 1], [2, 2, 1, 1]) == [3, 2]
    assert deal(9, [1, 5, 1], [2, 2, 1, 1]) == [2, 1]
    assert deal(10, []) == [0]
    with pytest.raises(ValueError, match="each of 2 classes takes, 7 bytes"):
        deal(6, [3, 1], [4, 1])


def test_quotas_of_a_budget_follow_from_the_images():
    memory = ExemplarMemory(budget="2kB")
    assert memory.quotas(3, SPEC) == [4, 3, 3]  # 2000 // 192 is 10
    with pytest.raises(ValueError, match="Pass image_spec="):
        memory.quotas(3)
    update(memory, samples_of({0: 2}))
    assert memory.quotas(3) == [4, 3, 3]


@pytest.mark.parametrize("storage", [RawStorage(), DiskStorage()], ids=str)
def test_less_than_an_image_a_class_is_refused_before_training(storage):
    memory = ExemplarMemory(budget=3 * RAW_BYTES, storage=storage)
    memory.check_room([0, 1, 2], SPEC)
    with pytest.raises(ValueError, match=f"Use budget >= {4 * RAW_BYTES}"):
        memory.check_room([0, 1, 2, 3], SPEC)


def test_a_budget_below_black_images_is_refused_before_training():
    memory = ExemplarMemory(budget=1000, storage=JpegStorage())
    black = JpegStorage().image_bytes(SPEC)
    with pytest.raises(ValueError, match=f"Use budget >= {2 * black}"):
        memory.check_room([0, 1], SPEC)
    memory.check_room([0], SPEC)


def noise_of(count):
    noise = np.random.default_rng(0).integers(0, 256, (count, *SHAPE), "uint8")
    return ArraySamples(noise, np.zeros(count, int))


def test_exemplars_that_leave_no_room_are_refused_before_training():
    storage = PngStorage()
    (noise,) = storage.encode(noise_of(1).all_images())
    black = storage.image_bytes(SPEC)
    memory = ExemplarMemory(budget=len(noise) + 2 * black - 1, storage=storage)
    update(memory, noise_of(1))
    memory.check_room([1], SPEC)
    with pytest.raises(ValueError, match="Use a larger budget"):
        memory.check_room([1, 2], SPEC)


def test_an_image_larger_than_the_budget_changes_nothing():
    memory = ExemplarMemory(budget=150, storage=PngStorage())
    with pytest.raises(ValueError, match="budget=150 bytes is less than the"):
        update(memory, noise_of(2))
    assert memory.labels == []


def test_balanced_set_has_as_many_as_the_class_with_the_most():
    memory = ExemplarMemory(budget=6000, storage=PngStorage())
    update(memory, samples_of({0: 60, 1: 60}))
    counts = [len(memory.images(k)) for k in (0, 1)]
    assert counts[0] != counts[1]
    balanced = balanced_samples(memory, samples_of({5: 60}, 9), extract)
    assert memory.quota_per_class() == max(counts)
    assert np.bincount(balanced.labels)[[0, 1, 5]].tolist() == [max(counts)] * 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"capacity": 3, "budget": 10},
        {"per_class": 3, "budget": 10},
        {"capacity": 3, "per_class": 3, "budget": 10},
    ],
)
def test_one_budget_at_a_time(arguments):
    with pytest.raises(ValueError, match="exactly one of them"):
        ExemplarMemory(**arguments)
