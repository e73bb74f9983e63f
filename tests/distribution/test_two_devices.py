"""The parts of `distribution.py` on two logical devices of one process."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental import distribution


@pytest.fixture(scope="module")
def results():
    """What each part makes, as plain lists and numbers, by its name."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    parts = (_averaged, _split, _shares, _empty, _plain_fit, _decay)
    return {part.__name__[1:]: part(strategy) for part in parts}


def _averaged(strategy):
    """Values of each replica after averaging: apart before, and equal."""
    with strategy.scope():
        apart = keras.Variable(np.zeros(2, "float32"))
        equal = keras.Variable(np.float32([0.1, 1 / 3]))

    @tf.function
    def move_apart():
        def move():
            context = tf.distribute.get_replica_context()
            index = tf.cast(context.replica_id_in_sync_group, tf.float32)
            apart.assign([1.0 + 2.0 * index, 10.0 * index])

        strategy.run(move)

    move_apart()
    before = equal.numpy().tolist()
    distribution.averaging(strategy, [apart, equal])()
    values = [
        [local.numpy().tolist() for local in variable.value.values]
        for variable in (apart, equal)
    ]
    return {"apart": values[0], "equal": values[1], "before": before}


def _split(strategy):
    """The parts of batches of 5, 2 and 1 rows."""
    batches = tf.data.Dataset.from_tensors(np.arange(5)).concatenate(
        tf.data.Dataset.from_tensors(np.arange(5, 7))
    )
    batches = batches.concatenate(tf.data.Dataset.from_tensors(np.arange(7, 8)))
    parts = distribution.split_batches(
        strategy, batches.map(lambda rows: (rows, {"again": rows}))
    )
    return [
        [part.numpy().tolist() for part in strategy.experimental_local_results(
            structure["again"]
        )]
        for _, structure in parts
    ]  # fmt: skip


def _shares(strategy):
    """The parts of the mean of 3 rows of 2.0 and 1 row of 6.0."""

    @tf.function
    def run():
        def share():
            context = tf.distribute.get_replica_context()
            is_first = context.replica_id_in_sync_group == 0
            return distribution.share_of_global_mean(
                tf.where(is_first, 2.0, 6.0), tf.where(is_first, 3, 1)
            )

        return strategy.run(share)

    return [float(v) for v in strategy.experimental_local_results(run())]


def _empty(strategy):
    """The logits of no rows, and the mean of none."""

    @tf.function
    def run():
        def logits():
            rows = tf.zeros((0, 3))
            found = distribution.rows_of(
                lambda filled: (
                    filled + tf.cast(tf.shape(filled)[0], tf.float32)
                ),
                rows,
                tf.shape(rows)[0],
            )
            mean = distribution.mean_or_zero(tf.reduce_mean(found), 0)
            return tf.shape(found), mean

        return strategy.run(logits)

    shape, mean = run()
    results = strategy.experimental_local_results
    return {
        "shapes": [value.numpy().tolist() for value in results(shape)],
        "means": [float(value) for value in results(mean)],
    }


def _plain_fit(strategy):
    """Steps and accuracy of a plain fit."""
    x, y = np.zeros((9, 4, 4, 1), "uint8"), np.arange(9) % 2
    with strategy.scope():
        backbone = keras.Sequential(
            [keras.Input((4, 4, 1)), keras.layers.Flatten()]
        )
        model = ki.IncrementalClassifier(backbone)
        model.compile(keras.optimizers.SGD(0.1))
        model.add_classes([0, 1])
    history = model.fit(x, y, batch_size=4, epochs=3, verbose=0).history
    return {
        "steps": int(model.optimizer.iterations.numpy()),
        "accuracy": history["accuracy"],
    }


def _decay(strategy):
    """What steps by L2 alone make of kernels; reserve columns after them."""
    with strategy.scope():
        l2 = keras.regularizers.L2(0.1)
        backbone = keras.Sequential(
            [
                keras.Input((2,)),
                keras.layers.Dense(3, kernel_regularizer=l2, name="hidden"),
            ]
        )
        model = ki.IncrementalClassifier(backbone, capacity=4)
        model.compile(
            keras.optimizers.SGD(0.5, momentum=0.9),
            loss=lambda units, logits: 0.0 * keras.ops.sum(logits, -1),
        )
        model.add_classes([0, 1])
        model.add_classes([2])

    def kernels():
        heads = [model.network.head_weights(index)[0] for index in (0, 1)]
        return [backbone.get_layer("hidden").kernel.numpy(), *heads]

    before = kernels()
    x, y = np.ones((5, 2)), [0, 1, 2, 0, 1]  # parts of 1 and 2 images
    model.fit(x, np.array(y), batch_size=3, verbose=0)
    (whole,) = [v for v in model.network.head.weights if v.name == "kernel"]
    return {
        "shares": [
            (after / start).ravel().tolist()
            for after, start in zip(kernels(), before, strict=True)
        ],
        "reserve": whole.numpy()[:, 3:].ravel().tolist(),
    }


def test_what_replicas_have_moved_apart_gets_its_mean(results):
    assert results["averaged"]["apart"] == [[2.0, 5.0], [2.0, 5.0]]


def test_what_is_equal_stays_equal_to_the_bit(results):
    averaged = results["averaged"]
    assert averaged["equal"] == [averaged["before"]] * 2


def test_parts_are_in_order_and_differ_by_one_row_at_most(results):
    assert results["split"] == [
        [[0, 1], [2, 3, 4]],
        [[5], [6]],
        [[], [7]],
    ]


def test_the_shares_of_a_mean_add_up_to_the_mean_of_all_rows(results):
    # 3 rows of 2 and 1 of 6: (3 * 2 + 1 * 6) / 4 = 3.
    assert results["shares"] == [1.5, 1.5]


def test_a_replica_without_a_row_has_no_logits_and_no_mean(results):
    assert results["empty"] == {"shapes": [[0, 3]] * 2, "means": [0.0, 0.0]}


def test_a_plain_fit_has_all_its_steps(results):
    # 9 images in batches of 4: the last has a row for one replica alone.
    found = results["plain_fit"]
    assert found["steps"] == 3 * 3
    assert len(found["accuracy"]) == 3


def test_l2_is_that_of_one_device(results):
    """Two steps of `b = 0.9 b + 0.2 w; w = w - 0.5 b`."""
    # b = 0.2, w = 0.9; then b = 0.18 + 0.18 = 0.36, w = 0.9 - 0.18 = 0.72.
    for shares in results["decay"]["shares"]:
        assert shares == [pytest.approx(0.72, rel=1e-5)] * len(shares)
    assert set(results["decay"]["reserve"]) == {0.0}
