"""Tasks, order, counts and errors of scenarios made of arrays."""

import doctest
import sys

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from keras_incremental.scenarios import (
    ClassIncrementalScenario,
    class_labels,
    digits,
    image_files,
    load_digits,
    scenario,
    schedule,
)

FROM = ClassIncrementalScenario.from_arrays


def marked_images(count, start=0):
    """Images whose every pixel tells their index."""
    index = np.arange(start, start + count, dtype="float32")
    return np.tile(index[:, None, None, None], (1, 2, 3, 1))


def made(train=(40, 7, 300) * 4, test=(7, 300, 40) * 2, **arguments):
    """A scenario of images 0, 1, ... (training) and 1000, ... (test)."""
    arguments.setdefault("classes_per_task", 2)
    return FROM(
        marked_images(len(train)),
        np.array(train),
        marked_images(len(test), 1000),
        np.array(test),
        **arguments,
    )


def pairs(dataset):
    """(index of the image, label) of every element."""
    return [
        (int(image[0, 0, 0]), label)
        for image, label in dataset.as_numpy_iterator()
    ]


def flat(tasks):
    return [label for task in tasks for label in task]


def image_numbers(dataset):
    return [number for number, _ in pairs(dataset)]


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(
    labels=st.sets(st.integers(0, 10**6), min_size=1, max_size=30),
    size=st.integers(1, 35),
    seed=st.integers(0, 2**32),
)
def test_tasks_partition_the_classes_for_any_size(labels, size, seed):
    tasks = schedule.ClassSchedule(classes_per_task=size, seed=seed).tasks(
        sorted(labels)
    )
    assert sorted(flat(tasks)) == sorted(labels)
    assert [len(task) for task in tasks[:-1]] == [size] * (len(tasks) - 1)
    assert 1 <= len(tasks[-1]) <= size


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6), data=st.data()
)
def test_tasks_follow_any_list_of_sizes_and_any_order(sizes, data):
    order = data.draw(st.permutations(range(sum(sizes))))
    tasks = schedule.ClassSchedule(
        classes_per_task=sizes, class_order=order
    ).tasks(sorted(order))
    assert [len(task) for task in tasks] == sizes
    assert flat(tasks) == list(order)


@hypothesis.settings(max_examples=5, deadline=None)
@hypothesis.given(
    train=st.lists(st.sampled_from([3, 9, 11, 50]), max_size=20),
    test=st.lists(st.sampled_from([3, 9, 11, 50]), max_size=20),
    size=st.integers(1, 4),
    limit=st.none() | st.integers(1, 5),
)
def test_datasets_hold_what_a_plain_scan_selects(train, test, size, limit):
    train, test = [50, 3, 9, 11, *train], [*test, 3, 9, 11, 50]
    made_scenario = made(
        train, test, classes_per_task=size, samples_per_class=limit
    )
    seen = []
    for task in made_scenario:
        seen += task.labels
        kept = [
            (i, y)
            for i, y in enumerate(train)
            if y in task.labels
            and (limit is None or train[:i].count(y) < limit)
        ]
        assert pairs(task.train) == kept
        assert len(task.train) == len(kept)
        for dataset, labels, count in (
            (task.test, task.labels, len(task.test)),
            (task.seen_test, seen, len(task.seen_test)),
        ):
            expected = [
                (1000 + i, y) for i, y in enumerate(test) if y in labels
            ]
            assert pairs(dataset) == expected
            assert count == len(expected)


def test_a_limit_keeps_the_first_images_of_a_class_and_all_test_images():
    (task,) = made((7, 40, 7, 7, 40, 40), (40, 7, 7, 7), samples_per_class=2)
    assert image_numbers(task.train) == [0, 1, 2, 4]
    assert image_numbers(task.test) == [1000, 1001, 1002, 1003]


def test_seen_test_of_the_last_task_is_the_whole_test_set():
    tasks = list(made(classes_per_task=1))
    assert image_numbers(tasks[-1].seen_test) == list(range(1000, 1006))


def test_every_pass_has_the_same_order():
    task = made()[0]
    assert pairs(task.train) == pairs(task.train)


def test_more_images_than_one_gather_keep_their_order_and_count():
    task = made([5] * 1000, [5], classes_per_task=1)[0]
    assert image_numbers(task.train) == list(range(1000))
    assert int(task.train.batch(128).cardinality()) == 8


def test_class_order_is_the_documented_draw():
    expected = np.random.default_rng(1993).permutation([7, 40, 300]).tolist()
    assert made(seed=1993).class_order == expected


def test_seeds_give_different_orders():
    orders = {tuple(made(seed=seed).class_order) for seed in range(20)}
    assert len(orders) > 1


def test_class_order_given_is_kept_and_holds_python_ints():
    order = made(class_order=np.array([300, 7, 40])).class_order
    assert order == [300, 7, 40]
    assert {type(label) for label in order} == {int}


def test_last_task_is_smaller_where_the_size_does_not_divide():
    assert [len(task.labels) for task in made()] == [2, 1]


def test_numpy_sizes_are_accepted():
    sizes = np.array([1, 2])
    assert [len(t.labels) for t in made(classes_per_task=sizes)] == [1, 2]


def test_scenario_describes_itself():
    it = made(seed=4, class_order=[40, 7, 300])
    assert (len(it), it.num_classes, it.seed) == (2, 3, 4)
    assert (it.image_shape, it.name) == ((2, 3, 1), "arrays")
    assert it.image_spec.shape == (2, 3, 1)
    assert [task.index for task in it] == [0, 1]
    assert it[-1].labels == it[np.int64(1)].labels == [300]
    assert "num_classes=3, classes_per_task=[2, 1]" in repr(it)


def test_index_beyond_the_tasks_is_an_error():
    with pytest.raises(IndexError, match="no task 2: the scenario has 2"):
        made()[2]


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float64", "int32"])
def test_images_keep_dtype_and_static_shape(dtype):
    x = marked_images(3).astype(dtype)
    task = FROM(x, [0, 1, 2], x, [0, 1, 2], 3)[0]
    assert task.train.element_spec == (
        tf.TensorSpec((2, 3, 1), dtype),
        tf.TensorSpec((), "int64"),
    )
    np.testing.assert_array_equal([i for i, _ in task.train], x)


def test_changing_the_arrays_later_does_not_change_the_scenario():
    x = marked_images(2)
    task = FROM(x, [0, 1], x, [0, 1], 2)[0]
    x[:] = 99
    assert image_numbers(task.train) == [0, 1]


@pytest.mark.parametrize(
    "labels",
    [
        ["dog", "cat"],
        np.array(["dog", "cat"], object),
        np.array([b"dog", b"cat"]),
        np.array([[b"dog"], [b"cat"]], object),
        tf.constant(["dog", "cat"]),
    ],
    ids=["list", "object", "bytes", "column of bytes", "tensor"],
)
def test_text_labels_of_any_kind_become_string_scalars(labels):
    x = marked_images(2)
    task = FROM(x, labels, x, labels, 2, class_order=["dog", "cat"])[0]
    assert task.labels == task.class_names == ["dog", "cat"]
    assert task.train.element_spec[1] == tf.TensorSpec((), "string")
    assert pairs(task.train) == [(0, b"dog"), (1, b"cat")]


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_column_of_integers_becomes_int64_scalars(dtype):
    x, y = marked_images(2), np.array([[4], [2]], dtype)
    task = FROM(x, y, x, y, 2)[0]
    assert task.test.element_spec[1] == tf.TensorSpec((), "int64")
    assert pairs(task.test) == [(0, 4), (1, 2)]


def test_names_default_to_the_text_of_the_labels():
    names = made(class_order=[40, 7, 300]).class_names
    assert list(names.items()) == [(40, "40"), (7, "7"), (300, "300")]


def test_a_label_without_a_name_is_named_by_its_text():
    names = made(class_names={7: "cat", 300: "cow"}).class_names
    assert names == {7: "cat", 40: "40", 300: "cow"}


def test_names_come_from_a_dict_or_a_list_by_label():
    named = made(class_names={7: "cat", 40: "dog", 300: "cow", 5: "unused"})
    assert named.class_names == {7: "cat", 40: "dog", 300: "cow"}
    listed = made((1, 0, 2), (2, 1, 0), class_names=["a", "b", "c"])
    assert listed.class_names == {0: "a", 1: "b", 2: "c"}
    for task in listed:
        expected = [listed.class_names[label] for label in task.labels]
        assert task.class_names == expected


BAD_ARGUMENTS = [
    ({"classes_per_task": 0}, ValueError, "classes_per_task is 0"),
    ({"classes_per_task": 2.0}, TypeError, r"per_task is .*2\.0"),
    ({"classes_per_task": True}, TypeError, "per_task is .*True"),
    ({"classes_per_task": "2"}, TypeError, "per_task is .*'2'"),
    ({"classes_per_task": []}, ValueError, "up to 0, .* has 3 classes"),
    ({"classes_per_task": [2, 0]}, ValueError, "per_task is 0"),
    ({"classes_per_task": [2, 2]}, ValueError, "up to 4, .* has 3 classes"),
    (
        {"classes_per_task": [1, 1], "class_order": [7, 300, 40]},
        ValueError,
        r"up to 2, .* has 3 classes. .* remain, .*: \[40\]",
    ),
    ({"class_order": [7, 40]}, ValueError, r"Missing: \[300\].*: \[\]"),
    ({"class_order": [7, 40, 1]}, ValueError, r"Missing: \[300\].*: \[1\]"),
    ({"class_order": [7, 40, 40]}, ValueError, r"twice: \[40\]"),
    ({"class_order": [7, 40, 300, 40]}, ValueError, r"twice: \[40\]"),
    ({"class_order": "label"}, ValueError, r"class_order has shape \(\)"),
    ({"class_order": [7, 40, 300.0]}, TypeError, "order has dtype float"),
    ({"seed": -1}, ValueError, "seed is -1"),
    ({"seed": None}, TypeError, "seed is None"),
    ({"samples_per_class": 0}, ValueError, "samples_per_class is 0"),
    ({"samples_per_class": 1.5}, TypeError, "samples_per_class is 1.5"),
    ({"class_names": ["a", "b"]}, ValueError, "2 names .* label"),
    ({"class_names": "abc"}, ValueError, "3 names .* label"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_ARGUMENTS)
def test_bad_argument_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        made(**arguments)


X = marked_images(2)
BAD_ARRAYS = [
    (X, [0.0, 1.0], X, [0, 1], TypeError, "y_train has dtype float64"),
    (X, [True, False], X, [0, 1], TypeError, "y_train has dtype bool"),
    (X, [0, 1], X, np.array([0, "a"], object), ValueError, "y_test holds 0"),
    (X, [0, -1], X, [0, 1], ValueError, "negative label -1"),
    (X, [[0, 1], [1, 0]], X, [0, 1], ValueError, "argmax"),
    (X, [0, 1, 2], X, [0, 1], ValueError, "x_train has 2 .* 3 labels"),
    (X, [0, 1], X, [0], ValueError, "x_test has 2 .* 1 labels"),
    (X[:0], [], X, [0, 1], ValueError, "y_train is empty"),
    (X, [0, 1], X[:0], [], ValueError, "y_test is empty"),
    (X, [0, 1], X, [0, 2], ValueError, r"test data: \[2\].*: \[1\]"),
    (X, [0, 1], X, ["0", "1"], ValueError, r"Only in the test data: \['0'"),
    (X, [0, 1], X[:, :1], [0, 1], ValueError, r"\(2, 3, 1\) float32 but"),
    (X, [0, 1], X.astype("uint8"), [0, 1], ValueError, "but test .* uint8"),
    (["a", "b"], [0, 1], X, [0, 1], TypeError, "x_train has dtype <U1"),
    ([[1], [1, 2]], [0, 1], X, [0, 1], ValueError, "inhomogeneous shape"),
    ([1, 2], [0, 1], X, [0, 1], ValueError, r"x_train has shape \(2,\)"),
]


@pytest.mark.parametrize(
    ("x_train", "y_train", "x_test", "y_test", "error", "message"), BAD_ARRAYS
)
def test_bad_array_is_named(x_train, y_train, x_test, y_test, error, message):
    with pytest.raises(error, match=message):
        FROM(x_train, y_train, x_test, y_test, 1)


def test_long_lists_of_labels_are_cut_short_in_messages():
    x = np.zeros((100, 1), "uint8")
    with pytest.raises(ValueError, match="99 in all"):
        FROM(x, np.arange(100), x[:1], [0], 1)


def test_digits_are_scaled_stratified_and_always_the_same():
    x_train, y_train, x_test, y_test = load_digits()
    assert x_train.shape == (1347, 8, 8, 1)
    assert x_test.shape == (450, 8, 8, 1)
    assert (x_train.dtype, y_train.dtype) == ("uint8", "int64")
    # 0, 1, 8 and 16 of 16 are 0, 15.94, 127.5 (to even) and 255 of 255.
    assert {0, 16, 128, 255} < set(np.unique(x_train).tolist())
    assert len(np.unique(x_train)) == 17
    share = np.bincount(y_test) / (np.bincount(y_train) + np.bincount(y_test))
    np.testing.assert_allclose(share, 0.25, atol=0.005)
    np.testing.assert_array_equal(load_digits()[0], x_train)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(
        ImportError, match=r"sklearn.*pip install.*\[examples\]"
    ):
        load_digits()


@pytest.mark.parametrize(
    "module",
    [class_labels, digits, image_files, scenario, schedule],
    ids=lambda module: module.__name__,
)
def test_docstring_examples_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
