"""What needs no second device or worker; `tests/distribution` has the rest."""

import numpy as np
import pytest
import tensorflow as tf

from keras_incremental import distribution


class Workers(tf.distribute.MultiWorkerMirroredStrategy):
    """A strategy that knows of a cluster, and connects to none."""

    def __init__(self, jobs, task_type, task_id):
        self._resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(jobs), task_type=task_type, task_id=task_id
        )

    @property
    def cluster_resolver(self):
        return self._resolver


def addresses(count):
    return [f"host{index}:2222" for index in range(count)]


@pytest.mark.parametrize(
    ("jobs", "task", "expected"),
    [
        ({"worker": addresses(2)}, ("worker", 0), True),
        ({"worker": addresses(2)}, ("worker", 1), False),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("chief", 0), True),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("worker", 0), False),
        ({"worker": addresses(1)}, ("worker", 0), True),
        ({}, ("worker", None), True),
    ],
)
def test_one_process_of_a_cluster_is_the_chief(jobs, task, expected):
    assert distribution.is_chief(Workers(jobs, *task)) is expected


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ({"worker": addresses(2)}, True),
        ({"chief": ["a:1"], "worker": ["b:1"]}, True),
        ({"worker": addresses(1), "evaluator": ["c:1"]}, False),
        ({}, False),
    ],
)
def test_workers_and_chief_are_counted_and_no_other_task(jobs, expected):
    strategy = Workers(jobs, "worker", 0)
    assert distribution.is_multi_worker(strategy) is expected


def test_a_process_without_a_strategy_is_the_chief():
    assert distribution.is_chief()
    assert not distribution.is_multi_worker(tf.distribute.get_strategy())


def test_with_one_replica_nothing_is_done():
    strategy = tf.distribute.get_strategy()
    batches = tf.data.Dataset.range(4).batch(2)
    assert distribution.split_batches(strategy, batches) is batches
    mean, count = tf.constant(3.0), tf.constant(7)
    assert distribution.share_of_global_mean(mean, count) is mean
    assert distribution.mean_or_zero(mean, count) is mean
    network, inputs = tf.identity, tf.zeros((0, 2))
    assert distribution.rows_of(network, inputs, 0).shape == (0, 2)

    def fail():
        raise AssertionError

    distribution.check_same(strategy, "weights", fail, "")


def test_variables_made_outside_of_the_scope_are_named_before_training():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])

    class TwoReplicas:
        num_replicas_in_sync = 2
        extended = strategy.extended

    import keras

    stranger = keras.Variable(np.zeros(2), name="stranger")
    with strategy.scope():
        local = keras.Variable(np.zeros(2), name="local")
    distribution.check_strategy(TwoReplicas(), [local])
    with pytest.raises(ValueError, match=r"1 variables.*stranger.*scope\(\)"):
        distribution.check_strategy(TwoReplicas(), [local, stranger])


def test_a_strategy_that_does_not_train_in_step_is_refused():
    strategy = tf.distribute.experimental.CentralStorageStrategy(["CPU:0"])
    with pytest.raises(
        ValueError, match="CentralStorageStrategy; expected Mir"
    ):
        distribution.check_strategy(strategy, [])
