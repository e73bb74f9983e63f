"""The balanced set: the same number of images for each class."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from keras_incremental.exemplars import ExemplarMemory, balanced_samples
from keras_incremental.exemplars.ranking import rank_classes
from keras_incremental.samples import ArraySamples

SHAPE = (4, 4, 1)


def make_samples(counts, first=0):
    labels = np.concatenate([[k] * n for k, n in counts.items()])
    images = np.zeros((len(labels), *SHAPE), "uint8")
    images[:, 1, 1, 0] = first + np.arange(len(labels))
    return ArraySamples(images, labels)


def extract(images):
    rows = [image[1, 1, 0] for image in images.as_numpy_iterator()]
    return np.stack([np.cos(rows), np.sin(np.multiply(rows, 1.0))], axis=1)


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
    chosen = rank_classes(memory, new, extract, {5: 3})[5].decoded()
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


@hypothesis.given(
    old=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    new=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    per_class=st.integers(1, 12),
)
@hypothesis.settings(deadline=None, max_examples=8)
def test_any_balanced_set_weighs_all_classes_alike(old, new, per_class):
    memory = ExemplarMemory(per_class=per_class)
    memory.update(make_samples(dict(enumerate(old))), extract)
    before = {label: memory.images(label) for label in memory.labels}
    arrived = make_samples(dict(enumerate(new, 10)), first=100)
    balanced = balanced_samples(memory, arrived, extract)
    number = min(per_class, max([*old, *new]))
    assert counts_of(balanced) == dict.fromkeys(
        [*range(len(old)), *range(10, 10 + len(new))], number
    )
    for label, size in counts_of(balanced).items():
        shown = balanced.all_images()[balanced.labels == label][:, 1, 1, 0]
        available = dict(enumerate(old)) | dict(enumerate(new, 10))
        # None is repeated before all have been shown.
        assert len(set(shown.tolist())) == min(size, available[label])
    for label, images in before.items():
        np.testing.assert_array_equal(memory.images(label), images)
