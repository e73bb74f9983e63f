"""Labels outside, units inside."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_incremental.labels import (
    ClassIndex,
    check_labels,
    distinct_in_order,
    label_names,
)


def test_units_follow_the_order_of_arrival():
    index = ClassIndex([40, 7])
    index.add([300])
    assert index.to_units([300, 40, 7, 7]).tolist() == [2, 0, 1, 1]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 10**9), unique=True, min_size=1, max_size=30),
    st.randoms(),
)
def test_graph_and_numpy_mapping_agree(labels, random):
    index = ClassIndex(labels)
    asked = [random.choice(labels) for _ in range(20)]
    expected = [labels.index(label) for label in asked]
    assert index.to_units(asked).tolist() == expected
    mapped = index.map_labels(tf.constant(asked, tf.int64))
    assert mapped.numpy().tolist() == expected


def test_strings_map_in_numpy_and_in_the_graph():
    index = ClassIndex(["ram", "été"])
    assert index.to_units(np.array(["été", "ram"])).tolist() == [1, 0]
    assert index.to_units(["été".encode()]).tolist() == [1]
    mapped = index.map_labels(tf.constant([["été"], ["ram"]]))
    assert mapped.numpy().tolist() == [1, 0]


def test_unknown_labels_are_named():
    index = ClassIndex([1, 2])
    with pytest.raises(ValueError, match=r"not been taught: \[5, 9\]"):
        index.to_units([1, 9, 5, 9])
    labels = tf.data.Dataset.from_tensors([1, 9]).map(index.map_labels)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"taught: \[9\]"):
        list(labels)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0.0, 1.0], TypeError, "astype"),
        ([True, False], TypeError, "bool"),
        ([3, -1], ValueError, "negative label -1"),
        ([[1, 0], [0, 1]], ValueError, "argmax"),
        (["a", None], ValueError, "None.* or missing"),
        (["a", ""], ValueError, "''.*none empty"),
        (np.array([1, "a"], object), ValueError, "holds 1.*all strings"),
    ],
)
def test_bad_labels_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        check_labels(labels)


def test_a_label_or_name_cannot_come_twice():
    index = ClassIndex([1], ["one"])
    with pytest.raises(ValueError, match="label may occur once"):
        index.add([1])
    with pytest.raises(ValueError, match="class name may occur once"):
        index.add([2], ["one"])
    with pytest.raises(TypeError, match="another kind"):
        index.add(["two"])
    assert index.labels == [1] and index.names == ["one"]


def test_names_come_from_a_dict_a_list_or_the_text():
    assert label_names([1, 0], ["zero", "one"]) == ["one", "zero"]
    assert label_names([40, 7], {7: "seven"}) == ["40", "seven"]
    assert label_names(["cat"]) == ["cat"]
    with pytest.raises(ValueError, match="list of 1 names"):
        label_names([1], ["zero"])


def test_distinct_labels_keep_the_order_of_appearance():
    assert distinct_in_order([40, 7, 40, 300, 7]) == [40, 7, 300]


def test_integers_of_an_object_column_are_integers():
    column = np.array([3, np.int64(1)], dtype=object)
    assert check_labels(column).dtype == np.int64


def test_names_may_come_as_an_array():
    names = np.array(["ant", "bee"])
    ClassIndex([0, 1], ["ant", "bee"]).check_names(names, "class_names")
    with pytest.raises(ValueError, match=r"label 1 'bee'.*knows it as 'cow'"):
        ClassIndex([1], ["cow"]).check_names(names, "class_names")
