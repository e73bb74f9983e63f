"""Batches for training: sources mixed, shuffled, augmented."""

import collections

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from keras_incremental.augmentation import CropFlip, StoredEEILAugmentation
from keras_incremental.exemplars import DiskStorage
from keras_incremental.samples import (
    ArraySamples,
    CachedColumn,
    read_samples,
    training_batches,
)

SHAPE = (4, 4, 1)


def make_samples(counts, first=0):
    labels = np.concatenate([[k] * n for k, n in counts.items()])
    images = np.zeros((len(labels), *SHAPE), "uint8")
    images[:, 1, 1, 0] = first + np.arange(len(labels))
    return ArraySamples(images, labels)


def in_one_file(samples):
    data = tf.data.Dataset.from_tensor_slices(
        (samples.all_images(), samples.labels)
    ).batch(4)
    return read_samples(data, image_shape=SHAPE, cache_bytes=0)


def to_units(labels):
    return (labels * 10).astype("int32")


def epochs_of(dataset, steps, epochs):
    iterator = dataset.as_numpy_iterator()
    return [[next(iterator) for _ in range(steps)] for _ in range(epochs)]


def numbers(epoch):
    return [int(i[1, 1, 0]) for x, _ in epoch for i in x["images"]]


@pytest.mark.parametrize("mapped", [False, True])
def test_every_epoch_holds_every_sample_once_in_a_new_order(mapped):
    new, old = make_samples({3: 13}), make_samples({1: 6}, first=13)
    sources = [in_one_file(new) if mapped else new, old]
    dataset, steps = training_batches(sources, to_units, batch_size=4)
    assert steps == 5
    first, second = epochs_of(dataset, steps, 2)
    assert sorted(numbers(first)) == sorted(numbers(second)) == [*range(19)]
    assert numbers(first) != numbers(second)
    for x, units in first:
        images = x["images"]
        is_new = images[:, 1, 1, 0] < 13
        assert units.tolist() == np.where(is_new, 30, 10).tolist()
        assert images.dtype == np.uint8 and units.dtype == np.int32


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
    count, batch_size, expected
):
    dataset, steps = training_batches(
        [make_samples({0: count})], to_units, batch_size=batch_size
    )
    for epoch in epochs_of(dataset, steps, 2):
        sizes = collections.Counter(len(units) for _, units in epoch)
        assert sizes == expected
        assert len(set(numbers(epoch))) == count


@pytest.mark.parametrize("mapped", [False, True])
def test_new_data_and_exemplars_are_mixed_throughout_the_epoch(mapped):
    new, old = make_samples({3: 100}), make_samples({1: 100}, first=100)
    sources = [in_one_file(new) if mapped else new, old]
    dataset, steps = training_batches(sources, to_units, batch_size=50)
    (epoch,) = epochs_of(dataset, steps, 1)
    for x, _ in epoch:
        assert 10 <= (x["images"][:, 1, 1, 0] < 100).sum() <= 40


def in_files(samples):
    storage = DiskStorage()
    rows = np.array(storage.encode(samples.all_images()), object)
    return storage.samples(rows, samples.image_spec, samples.labels)


@pytest.mark.parametrize(
    ("kind", "global_seed"),
    [("arrays", 7), ("one file", 0), ("files of all kinds", 7)],
)
def test_order_and_augmentation_depend_on_seed_and_epoch_alone(
    kind, global_seed
):
    sources = [make_samples({0: 20, 1: 10})]
    if kind != "arrays":
        sources = [in_one_file(sources[0])]
    if kind == "files of all kinds":
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
        np.testing.assert_array_equal(a["images"], b["images"])
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
        return sorted(i.tobytes() for x, _ in epoch for i in x["images"])

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


def cached(copies, count, first=0, structure=lambda rows: rows):
    """Row i of variant c is (c, first + i); the labels are of 3 classes."""
    rows = np.indices((copies, count)).transpose(1, 2, 0).astype("uint8")
    rows[..., 1] += first
    labels = (first + np.arange(count)) % 3
    return CachedColumn("frozen", structure(rows), labels)


def rows_of(epoch):
    return np.concatenate([x["frozen"] for x, _ in epoch])


def test_epoch_e_of_a_cached_column_holds_variant_e_mod_copies_once():
    dataset, steps = training_batches([cached(3, 13)], to_units, batch_size=4)
    assert steps == 4
    epochs = epochs_of(dataset, steps, 5)
    for epoch, batches in enumerate(epochs):
        rows = rows_of(batches)
        units = np.concatenate([units for _, units in batches])
        assert set(rows[:, 0]) == {epoch % 3}
        assert sorted(rows[:, 1]) == [*range(13)]
        np.testing.assert_array_equal(units, rows[:, 1] % 3 * 10)
    assert [len(units) for _, units in epochs[0]] == [3, 3, 3, 4]
    assert len({tuple(rows_of(epoch)[:, 1]) for epoch in epochs}) == 5


def test_cached_columns_of_new_data_and_exemplars_are_mixed():
    def tuple_of(rows):
        return rows, rows.astype("float32") * 2

    sources = [cached(2, 7, structure=tuple_of)]
    sources.append(cached(3, 6, first=7, structure=tuple_of))
    dataset, steps = training_batches(sources, to_units, batch_size=5)
    for number, epoch in enumerate(epochs_of(dataset, steps, 6)):
        seen = []
        for x, units in epoch:
            rows, doubled = x["frozen"]
            np.testing.assert_array_equal(doubled, rows * 2.0)
            np.testing.assert_array_equal(units, rows[:, 1] % 3 * 10)
            copies = np.where(rows[:, 1] < 7, 2, 3)
            np.testing.assert_array_equal(rows[:, 0], number % copies)
            seen += rows[:, 1].tolist()
        assert sorted(seen) == [*range(13)]


def test_a_run_on_a_cached_column_goes_on_at_any_epoch():
    column = cached(3, 10)
    whole, steps = training_batches([column], to_units, batch_size=5)
    resumed, _ = training_batches(
        [column], to_units, batch_size=5, first_epoch=2
    )
    expected = epochs_of(whole, steps, 4)[2:]
    for epoch, again in zip(
        expected, epochs_of(resumed, steps, 2), strict=True
    ):
        np.testing.assert_array_equal(rows_of(epoch), rows_of(again))


def test_a_cached_column_comes_in_the_order_of_its_images():
    """With and without a cached column, the same batches are trained on."""
    images, column = make_samples({0: 20}), cached(1, 20)
    plain, steps = training_batches([images], to_units, batch_size=6)
    looked_up, _ = training_batches([column], to_units, batch_size=6)
    for (a, _), (b, _) in zip(
        epochs_of(plain, steps, 1)[0],
        epochs_of(looked_up, steps, 1)[0],
        strict=True,
    ):
        assert a["images"][:, 1, 1, 0].tolist() == b["frozen"][:, 1].tolist()


@pytest.mark.parametrize("mapped", [False, True])
def test_a_cached_column_is_not_mixed_with_images(mapped):
    images = make_samples({0: 3})
    with pytest.raises(ValueError, match=r"\['frozen', 'images'\]"):
        training_batches(
            [cached(1, 5), in_one_file(images) if mapped else images],
            to_units,
            batch_size=2,
        )


def first_pixels(images):
    return np.stack([images[:, 1, 1, 0] * 2.0, images[:, 1, 1, 0]], axis=1)


@pytest.mark.parametrize("stored", [False, True])
def test_further_columns_go_along_with_their_images(stored):
    calls = []

    def teacher_logits(columns):
        images = columns["images"].numpy()
        calls.append(len(images))
        return first_pixels(images).astype("float32")

    batches, steps = training_batches(
        [make_samples({0: 5}), make_samples({1: 6}, first=5)],
        to_units,
        batch_size=4,
        augment=StoredEEILAugmentation(padding=1) if stored else None,
        columns={"teacher_logits": teacher_logits},
    )
    for epoch in epochs_of(batches, steps, 2):
        assert sum(len(units) for _, units in epoch) == (132 if stored else 11)
        for x, _ in epoch:
            np.testing.assert_array_equal(
                x["teacher_logits"], first_pixels(x["images"])
            )
    assert calls == [132 if stored else 11]


def test_further_columns_are_computed_a_part_at_a_time():
    calls = []

    def number(columns):
        calls.append(len(columns["images"]))
        return columns["images"].numpy()[:, 1, 1]

    images = np.zeros((2500, *SHAPE), "int32")
    images[:, 1, 1, 0] = np.arange(2500)
    batches, _ = training_batches(
        [ArraySamples(images, np.zeros(2500, int))],
        to_units,
        batch_size=300,
        columns={"number": number},
    )
    assert calls == [256] * 9 + [196]
    x, _ = next(batches.as_numpy_iterator())
    np.testing.assert_array_equal(x["number"], x["images"][:, 1, 1])


@pytest.mark.parametrize("parts", [1, 2])
def test_further_columns_are_computed_from_a_cached_column(parts):
    """By old logits of frozen outputs, for instance: no image is needed."""

    def structure(rows):
        return rows if parts == 1 else (rows, rows)

    def logits(columns):
        return keras.tree.flatten(columns["frozen"])[0].numpy() * 3.0

    batches, steps = training_batches(
        [cached(1, 7, 0, structure), cached(1, 4, 7, structure)],
        to_units,
        batch_size=4,
        columns={"teacher_logits": logits},
    )
    (epoch,) = epochs_of(batches, steps, 1)
    for x, _ in epoch:
        rows = keras.tree.flatten(x["frozen"])[0]
        np.testing.assert_array_equal(x["teacher_logits"], rows * 3.0)


@pytest.mark.parametrize("kind", ["augmented", "several copies"])
def test_rows_that_change_come_without_further_columns(kind):
    source = make_samples({0: 5})
    if kind == "several copies":
        source = cached(2, 5)
    batches, _ = training_batches(
        [source],
        to_units,
        batch_size=4,
        augment=CropFlip(padding=1) if kind == "augmented" else None,
        columns={"teacher_logits": lambda columns: pytest.fail("called")},
    )
    x, units = next(batches.as_numpy_iterator())
    assert x.keys() == {source.name} and len(units)


KINDS = {
    "arrays": lambda samples: samples,
    "one file": in_one_file,
    "files": in_files,
}


@hypothesis.given(
    sources=st.lists(
        st.tuples(st.sampled_from([*KINDS]), st.integers(0, 9)),
        min_size=1,
        max_size=3,
    ).filter(lambda sources: any(count for _, count in sources)),
    batch_size=st.integers(1, 12),
    first_epoch=st.integers(0, 3),
)
@hypothesis.settings(deadline=None, max_examples=8)
def test_any_sources_are_seen_whole_in_every_epoch(
    sources, batch_size, first_epoch
):
    firsts = np.cumsum([0, *(count for _, count in sources)]).tolist()
    mixed = [
        KINDS[kind](make_samples({label: count}, first=first))
        for label, ((kind, count), first) in enumerate(
            zip(sources, firsts[:-1], strict=True)
        )
        if count
    ]
    dataset, steps = training_batches(
        mixed, to_units, batch_size=batch_size, first_epoch=first_epoch
    )
    total = firsts[-1]
    assert steps == -(-total // batch_size)
    for epoch in epochs_of(dataset, steps, 2):
        assert sorted(numbers(epoch)) == [*range(total)]
        for x, units in epoch:
            number = x["images"][:, 1, 1, 0]
            source = np.searchsorted(firsts, number, side="right") - 1
            np.testing.assert_array_equal(units, source * 10)
        sizes = [len(units) for _, units in epoch]
        assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1


def test_batches_too_small_for_the_replicas_are_refused():
    samples = make_samples({3: 5})
    training_batches([samples], to_units, batch_size=2)
    with pytest.raises(
        ValueError, match="5 images in 3 batches has one of 1, which 2"
    ):
        training_batches([samples], to_units, batch_size=2, replicas=2)
