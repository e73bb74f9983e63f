"""One trace for batches of all sizes, and no warning of too many."""

import numpy as np
import tensorflow as tf

from keras_incremental.networks import traced


def test_all_batch_sizes_share_a_trace():
    shapes = []

    def double(columns, factor):
        shapes.append(columns["images"].shape.as_list())
        return factor * columns["images"]

    function = traced(double)
    for size in (3, 1, 2):
        images = np.full((size, 2), 5.0, "float32")
        found = function({"images": images}, 2.0).numpy()
        np.testing.assert_array_equal(found, 2 * images)
    assert shapes == [[None, 2]]


def test_first_calls_of_many_functions_are_not_taken_for_retracing(
    tensorflow_messages,
):
    """TensorFlow counts all functions of one piece of code as one."""
    for factor in range(8):
        traced(lambda x, factor=factor: factor * x)(np.ones(3))
    assert not [text for text in tensorflow_messages if "retracing" in text]


def test_it_is_part_of_a_graph_that_calls_it():
    double = traced(lambda x: 2 * x)
    outer = tf.function(lambda x: double(x) + 1)
    assert outer(tf.ones([3])).numpy().tolist() == [3, 3, 3]
