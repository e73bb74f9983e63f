"""Mixing new data and exemplars; the balanced set."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from keras_incremental.augmentation import CropFlip, StoredEEILAugmentation
from keras_incremental.exemplars import (
    DiskStorage,
    ExemplarMemory,
    balanced_samples,
    training_batches,
)
from keras_incremental.samples import ArraySamples, KeptSamples, read_samples

SHAPE = (4, 4, 1)


def make_samples(counts, first=0):
    labels = np.concatenate([[k] * n for k, n in counts.items()])
    images = np.zeros((len(labels), *SHAPE), "uint8")
    images[:, 1, 1, 0] = first + np.arange(len(labels))
    return ArraySamples(images, labels)


def stream(samples):
    data = tf.data.Dataset.from_tensor_slices(
        (samples.all_images(), samples.labels)
    ).batch(4)
    return read_samples(data, image_shape=SHAPE, cache_bytes=0)


def extract(images):
    rows = [image[1, 1, 0] for image in images.as_numpy_iterator()]
    return np.stack([np.cos(rows), np.sin(np.multiply(rows, 1.0))], axis=1)


def to_units(labels):
    return (labels * 10).astype("int32")


def epochs_of(dataset, steps, epochs):
    iterator = dataset.as_numpy_iterator()
    return [[next(iterator) for _ in range(steps)] for _ in range(epochs)]


def numbers(epoch):
    return [int(i[1, 1, 0]) for images, _ in epoch for i in images]


@pytest.mark.parametrize("streamed", [False, True])
def test_every_epoch_holds_every_sample_once_in_a_new_order(streamed):
    new, old = make_samples({3: 13}), make_samples({1: 6}, first=13)
    sources = [stream(new) if streamed else new, old]
    dataset, steps = training_batches(sources, to_units, batch_size=4)
    assert steps == 5
    first, second = epochs_of(dataset, steps, 2)
    assert sorted(numbers(first)) == sorted(numbers(second)) == [*range(19)]
    assert numbers(first) != numbers(second)
    for images, units in first:
        is_new = images[:, 1, 1, 0] < 13
        assert units.tolist() == np.where(is_new, 30, 10).tolist()
        assert images.dtype == np.uint8 and units.dtype == np.int32


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("count", "batch_size", "expected"),
    [
        (33, 8, {6: 2, 7: 3}),  # the plain cut would end on a batch of one
        (91, 10, {9: 9, 10: 1}),
        (50, 8, {7: 6, 8: 1}),
        (40, 8, {8: 5}),
        (3, 8, {3: 1}),
    ],
)
def test_sizes_of_an_epochs_batches_differ_by_one_at_most(
    count, batch_size, expected, streamed
):
    samples = make_samples({0: count})
    dataset, steps = training_batches(
        [stream(samples) if streamed else samples],
        to_units,
        batch_size=batch_size,
    )
    for epoch in epochs_of(dataset, steps, 2):
        sizes = collections.Counter(len(images) for images, _ in epoch)
        assert sizes == expected
        assert len(set(numbers(epoch))) == count


@pytest.mark.parametrize("streamed", [False, True])
def test_new_data_and_exemplars_are_mixed_throughout_the_epoch(streamed):
    new, old = make_samples({3: 100}), make_samples({1: 100}, first=100)
    sources = [stream(new) if streamed else new, old]
    dataset, steps = training_batches(sources, to_units, batch_size=50)
    (epoch,) = epochs_of(dataset, steps, 1)
    for images, _ in epoch:
        assert 10 <= (images[:, 1, 1, 0] < 100).sum() <= 40


def in_files(samples):
    storage = DiskStorage()
    rows = np.array(storage.encode(samples.all_images()), object)
    return storage.samples(rows, samples.image_spec, samples.labels)


@pytest.mark.parametrize("global_seed", [0, 7])
@pytest.mark.parametrize("kind", ["arrays", "streamed", "streamed and files"])
def test_order_and_augmentation_depend_on_seed_and_epoch_alone(
    kind, global_seed
):
    sources = [make_samples({0: 20, 1: 10})]
    if kind != "arrays":
        sources = [stream(sources[0])]
    if kind == "streamed and files":
        sources.append(in_files(make_samples({0: 4, 1: 6}, first=30)))
    options = {"batch_size": 8, "augment": CropFlip(padding=1)}

    def run(seed, first_epoch=0):
        tf.random.set_seed(global_seed)
        dataset, steps = training_batches(
            sources, to_units, seed=seed, first_epoch=first_epoch, **options
        )
        return epochs_of(dataset, steps, 3)

    whole, resumed = run((5, 1)), run((5, 1), first_epoch=2)
    for (a, _), (b, _) in zip(whole[2], resumed[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert numbers(run((5, 2))[0]) != numbers(whole[0])


def test_stored_augmentation_makes_its_copies_once():
    samples = make_samples({0: 5, 1: 4})
    dataset, steps = training_batches(
        [samples],
        to_units,
        batch_size=9,
        augment=StoredEEILAugmentation(padding=1),
    )
    assert steps == 12

    def images_of(epoch):
        return sorted(i.tobytes() for images, _ in epoch for i in images)

    first, second = epochs_of(dataset, steps, 2)
    assert images_of(first) == images_of(second)
    units = collections.Counter(u for _, units in first for u in units)
    assert units == {0: 5 * 12, 10: 4 * 12}
    originals = {i.tobytes() for i in samples.all_images()}
    assert originals <= set(images_of(first))


def test_stored_augmentation_over_the_budget_names_the_way_out():
    with pytest.raises(ValueError, match="EEILAugmentation"):
        training_batches(
            [make_samples({0: 5})],
            to_units,
            batch_size=2,
            augment=StoredEEILAugmentation(),
            cache_bytes=100,
        )


def test_augmentation_never_reaches_the_stored_images():
    samples = make_samples({0: 20})
    before = samples.all_images().copy()
    dataset, steps = training_batches(
        [samples], to_units, batch_size=4, augment=CropFlip()
    )
    epochs_of(dataset, steps, 2)
    np.testing.assert_array_equal(samples.all_images(), before)


def counts_of(samples):
    labels, counts = np.unique(samples.labels, return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def test_balanced_set_has_the_same_number_for_each_class():
    memory = ExemplarMemory(11)
    memory.update(make_samples({0: 20, 1: 20}), extract)  # quotas 6 and 5
    balanced = balanced_samples(
        memory, make_samples({5: 30, 6: 9, 7: 5}, first=50), extract
    )
    assert counts_of(balanced) == dict.fromkeys([0, 1, 5, 6, 7], 5)
    # Balanced per class, not old against new in total.
    assert len(memory) == 11 and memory.labels == [0, 1]


def test_balanced_set_takes_the_best_exemplars_and_selected_new_images():
    memory = ExemplarMemory(7)
    memory.update(make_samples({0: 20, 1: 20}), extract)
    new = make_samples({5: 30}, first=50)
    balanced = balanced_samples(memory, new, extract)
    got = balanced.all_images()[balanced.labels == 0]
    np.testing.assert_array_equal(got, memory.images(0)[:3])
    chosen = memory.rank(new, extract, {5: 3})[5].decoded()
    got = balanced.all_images()[balanced.labels == 5]
    np.testing.assert_array_equal(got, chosen)


def test_a_scarce_class_repeats_its_images_in_the_balanced_set():
    memory = ExemplarMemory(per_class=4)
    memory.update(make_samples({0: 9}), extract)
    balanced = balanced_samples(memory, make_samples({1: 3}, 50), extract)
    assert counts_of(balanced) == {0: 4, 1: 4}
    scarce = balanced.all_images()[balanced.labels == 1][:, 1, 1, 0]
    assert set(scarce.tolist()) == {50, 51, 52}


def test_balanced_set_repeats_no_image_of_the_largest_class():
    """A memory with room to spare does not make fine-tuning longer."""
    memory = ExemplarMemory(100)
    memory.update(make_samples({0: 4, 1: 6}), extract)  # shares of 50
    balanced = balanced_samples(memory, make_samples({5: 3}, 50), extract)
    assert counts_of(balanced) == {0: 6, 1: 6, 5: 6}
    largest = balanced.all_images()[balanced.labels == 1][:, 1, 1, 0]
    assert sorted(largest.tolist()) == [*range(4, 10)]


def test_balanced_set_without_exemplars_is_an_error():
    with pytest.raises(ValueError, match="memory is empty"):
        balanced_samples(ExemplarMemory(5), make_samples({0: 3}), extract)


def make_kept(copies, count):
    """Row i of variant c is (c, i)."""
    rows = np.indices((copies, count)).transpose(1, 2, 0).astype("uint8")
    return KeptSamples(rows, np.arange(count) % 3)


def test_epoch_e_of_kept_samples_holds_variant_e_mod_copies_once():
    dataset, steps = training_batches(
        [make_kept(3, 13)], to_units, batch_size=4
    )
    assert steps == 4
    epochs = epochs_of(dataset, steps, 5)
    for epoch, batches in enumerate(epochs):
        rows = np.concatenate([rows for rows, _ in batches])
        units = np.concatenate([units for _, units in batches])
        assert set(rows[:, 0]) == {epoch % 3}
        assert sorted(rows[:, 1]) == [*range(13)]
        np.testing.assert_array_equal(units, rows[:, 1] % 3 * 10)
    assert [len(rows) for rows, _ in epochs[0]] == [3, 3, 3, 4]
    orders = {
        tuple(row for rows, _ in epoch for row in rows[:, 1])
        for epoch in epochs
    }
    assert len(orders) == 5


def test_a_run_on_kept_samples_goes_on_at_any_epoch():
    kept = make_kept(3, 10)
    whole, steps = training_batches([kept], to_units, batch_size=5)
    resumed, _ = training_batches([kept], to_units, batch_size=5, first_epoch=2)
    expected = epochs_of(whole, steps, 4)[2:]
    for epoch, again in zip(
        expected, epochs_of(resumed, steps, 2), strict=True
    ):
        for (a, _), (b, _) in zip(epoch, again, strict=True):
            np.testing.assert_array_equal(a, b)


def test_kept_samples_come_in_the_order_of_the_images_they_were_made_of():
    """With and without a kept trunk, the same batches are trained on."""
    images, kept = make_samples({0: 20}), make_kept(1, 20)
    plain, steps = training_batches([images], to_units, batch_size=6)
    looked_up, _ = training_batches([kept], to_units, batch_size=6)
    for (a, _), (b, _) in zip(
        epochs_of(plain, steps, 1)[0],
        epochs_of(looked_up, steps, 1)[0],
        strict=True,
    ):
        assert a[:, 1, 1, 0].tolist() == b[:, 1].tolist()


def test_kept_samples_are_not_mixed_with_others():
    with pytest.raises(ValueError, match="mixed with 1 other"):
        training_batches(
            [make_kept(1, 5), make_samples({0: 3})], to_units, batch_size=2
        )


def first_pixels(images):
    return np.stack([images[:, 1, 1, 0] * 2.0, images[:, 1, 1, 0]], axis=1)


@pytest.mark.parametrize("stored", [False, True])
def test_the_teachers_logits_go_along_with_their_images(stored):
    calls = []

    def teacher_logits(images):
        calls.append(len(images))
        return first_pixels(images).astype("float32")

    batches, steps = training_batches(
        [make_samples({0: 5}), make_samples({1: 6}, first=5)],
        to_units,
        batch_size=4,
        augment=StoredEEILAugmentation(padding=1) if stored else None,
        teacher_logits=teacher_logits,
    )
    for epoch in epochs_of(batches, steps, 2):
        assert sum(len(units) for _, units in epoch) == (132 if stored else 11)
        for x, _ in epoch:
            np.testing.assert_array_equal(
                x["teacher_logits"], first_pixels(x["images"])
            )
    assert calls == [132 if stored else 11]


@pytest.mark.parametrize("kind", ["augmented", "streamed"])
def test_images_that_change_or_are_streamed_come_without_logits(kind):
    samples = make_samples({0: 5})
    batches, _ = training_batches(
        [stream(samples) if kind == "streamed" else samples],
        to_units,
        batch_size=4,
        augment=CropFlip(padding=1) if kind == "augmented" else None,
        teacher_logits=lambda images: pytest.fail("the teacher was called"),
    )
    images, units = next(batches.as_numpy_iterator())
    assert images.shape[1:] == SHAPE and len(units)


def test_batches_too_small_for_the_replicas_are_refused():
    samples = make_samples({3: 5})
    training_batches([samples], to_units, batch_size=2)
    with pytest.raises(
        ValueError, match="5 images in 3 batches has one of 1, which 2"
    ):
        training_batches([samples], to_units, batch_size=2, replicas=2)
