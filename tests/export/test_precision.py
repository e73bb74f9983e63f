"""A model trained in mixed precision is served in float32, or as it is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki

HALVES = (tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum)


@pytest.fixture(
    scope="module",
    params=[
        "mixed_float16",
        pytest.param("mixed_bfloat16", marks=pytest.mark.slow),
    ],
)
def mixed(request, add_branch):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(request.param)
    try:
        model = ki.IncrementalClassifier(
            keras.Sequential(
                [
                    # No picture: one signature, which is quick to publish.
                    keras.Input((4, 4, 2)),
                    keras.layers.Conv2D(4, 3, name="shared"),
                    keras.layers.Flatten(),
                    keras.layers.Dense(4),
                ]
            ),
            branch_at="shared",
        )
        model.add_classes([0, 1])
        add_branch(model, [2, 3])
    finally:
        keras.config.set_dtype_policy("float32")
    return model


def dtypes(function):
    """Returns the dtypes of all tensors of a function and of those it calls."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node]
    for called in graph.library.function:
        nodes += called.node_def
    return {
        item
        for node in nodes
        for value in node.attr.values()
        for item in [value.type, *value.list.type]
    }


@pytest.mark.parametrize("as_float32", [True, False])
def test_published_precision_is_the_one_asked_for(mixed, tmp_path, as_float32):
    path = ki.export.publish(mixed, tmp_path, as_float32=as_float32)
    serve = tf.saved_model.load(path).signatures["serving_default"]
    assert bool(dtypes(serve).intersection(HALVES)) is not as_float32
    images = np.random.default_rng(0).uniform(0, 1, (3, 4, 4, 2))
    images = images.astype("float32")
    probabilities = serve(images=tf.constant(images))["probabilities"]
    assert probabilities.dtype == tf.float32
    np.testing.assert_allclose(
        probabilities,
        tf.nn.softmax(mixed.predict(images, verbose=0)),
        atol=0.02,
    )
