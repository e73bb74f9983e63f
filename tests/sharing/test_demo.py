"""A task is split in two by class, and nothing gets lost."""

import dataclasses

import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.sharing import hold_out

PER_CLASS, TEST_PER_CLASS = 5, 3


def make_scenario(labels, classes_per_task, class_names=None):
    """Images of one pixel, all different; each class has as many."""

    def arrays(per_class, first):
        repeated = np.tile(labels, per_class)
        images = first + np.arange(len(repeated), dtype="uint8")
        return images.reshape(-1, 1, 1, 1), repeated

    return ki.ClassIncrementalScenario.from_arrays(
        *arrays(PER_CLASS, 0),
        *arrays(TEST_PER_CLASS, 100),
        classes_per_task=classes_per_task,
        class_order=list(labels),
        class_names=class_names,
    )


@pytest.fixture
def task():
    """A task of five classes, in an order that is not sorted."""
    return make_scenario([40, 7, 3, 12, 9], 5)[0]


def content(dataset):
    """All pairs of pixel and label, in order."""
    pairs = dataset.as_numpy_iterator()
    return [(int(image.item()), plain(label)) for image, label in pairs]


def plain(label):
    return label.decode() if isinstance(label, bytes) else int(label)


def of_classes(dataset, labels):
    return [pair for pair in content(dataset) if pair[1] in labels]


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_classes_are_divided_in_their_order(task, classes):
    base, demo = hold_out(task, classes)
    assert len(demo.labels) == classes
    assert sorted(base.labels + demo.labels) == sorted(task.labels)
    for part in (base, demo):
        positions = [task.labels.index(label) for label in part.labels]
        assert positions == sorted(positions)


def test_two_classes_are_held_out_by_default(task):
    assert len(hold_out(task)[1].labels) == 2


def test_datasets_are_those_of_the_task_by_label(task):
    base, demo = hold_out(task, 2)
    for part in (base, demo):
        for name in ("train", "test"):
            whole = getattr(task, name)
            expected = of_classes(whole, part.labels)
            assert content(getattr(part, name)) == expected
    assert len(content(base.train)) == 3 * PER_CLASS
    assert len(content(demo.test)) == 2 * TEST_PER_CLASS


def test_seen_test_of_the_demo_is_of_all_classes(task):
    base, demo = hold_out(task, 2)
    assert content(base.seen_test) == content(base.test)
    assert content(demo.seen_test) == content(task.test)


def test_datasets_know_how_many_images_they_have(task):
    base, demo = hold_out(task, 2)
    assert (len(base.train), len(demo.train)) == (3 * PER_CLASS, 2 * PER_CLASS)
    assert (len(base.test), len(demo.test)) == (
        3 * TEST_PER_CLASS,
        2 * TEST_PER_CLASS,
    )
    assert len(base.seen_test) == 3 * TEST_PER_CLASS
    assert len(demo.seen_test) == 5 * TEST_PER_CLASS
    for part in (base, demo):
        for name in ("train", "test", "seen_test"):
            dataset = getattr(part, name)
            assert int(dataset.cardinality()) == len(content(dataset))


def test_datasets_can_be_batched_shuffled_and_read_twice(task):
    base, _ = hold_out(task, 2)
    for _ in range(2):
        batches = list(base.train.shuffle(100).batch(4).as_numpy_iterator())
        assert [len(labels) for _, labels in batches] == [4, 4, 4, 3]


def test_demo_comes_after_the_base(task):
    base, demo = hold_out(dataclasses.replace(task, index=3))
    assert (base.index, demo.index) == (3, 4)


def test_task_itself_stays_as_it_is(task):
    before = content(task.train), list(task.labels), len(task.seen_test)
    hold_out(task, 3)
    assert (content(task.train), task.labels, len(task.seen_test)) == before


def test_images_and_labels_keep_their_kind(task):
    for part in hold_out(task):
        assert part.train.element_spec == task.train.element_spec
        assert all(type(label) is int for label in part.labels)


def test_names_go_with_their_labels():
    names = {40: "forty", 7: "seven", 3: "three", 12: "twelve", 9: "nine"}
    task = make_scenario(list(names), 5, names)[0]
    for part in hold_out(task, 2):
        assert part.class_names == [names[label] for label in part.labels]


def test_labels_may_be_strings():
    task = make_scenario(["emu", "cat", "fox", "dog"], 4)[0]
    base, demo = hold_out(task, 1)
    assert len(base.labels) == 3 and len(demo.labels) == 1
    assert content(demo.train) == of_classes(task.train, demo.labels)
    assert {label for _, label in content(base.train)} == set(base.labels)
    assert len(demo.train) == PER_CLASS


def test_same_seed_holds_out_the_same_and_seeds_differ(task):
    drawn = [hold_out(task, 2, seed)[1].labels for seed in range(8)]
    assert hold_out(task, 2, seed=3)[1].labels == drawn[3]
    assert len({tuple(labels) for labels in drawn}) > 3
    assert hold_out(task, 2)[1].labels == drawn[0]


@pytest.mark.parametrize("classes", [0, -1, 5, 6])
def test_other_numbers_of_classes_are_refused(task, classes):
    with pytest.raises(ValueError, match=f"classes={classes} of a task of 5"):
        hold_out(task, classes)


def test_a_task_of_one_class_cannot_be_split():
    with pytest.raises(ValueError, match="classes=1 of a task of 1"):
        hold_out(make_scenario([40, 7], 1)[0], 1)
