"""More than one device or worker: what `tf.distribute` leaves to the program.

Every worker runs the whole program on the whole data: labels, growth, teacher,
selection and memory are computed by each, alike. A train step alone is shared:
each replica takes its part of the global batch, and the gradients are summed.
With one replica all functions here do nothing.
"""

import hashlib
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

__all__ = ["is_chief", "is_multi_worker"]

_REFUSED = (
    tf.distribute.experimental.ParameterServerStrategy,
    tf.distribute.experimental.CentralStorageStrategy,
    tf.distribute.TPUStrategy,
)


def is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    """Whether more than one process trains the model."""
    return _number_of_workers(strategy) > 1


def is_chief(strategy: tf.distribute.Strategy | None = None) -> bool:
    """Whether this process is the one that writes files.

    It is the task `chief`, or where there is none the task `worker` 0; a
    process without others always is.

    Args:
        strategy: by default the one whose scope is open.

    >>> is_chief()
    True
    """
    strategy = strategy or tf.distribute.get_strategy()
    if not is_multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    if "chief" in resolver.cluster_spec().jobs:
        return resolver.task_type == "chief"
    return resolver.task_type == "worker" and resolver.task_id == 0


def check_strategy(
    strategy: tf.distribute.Strategy, variables: Sequence[keras.Variable]
) -> None:
    """Refuses a strategy, or variables made outside of its scope.

    Args:
        strategy: The model's.
        variables: Those of the model and its optimizer.

    Raises:
        ValueError: for a strategy that does not train copies in step, or for
            variables that are not copied to its replicas.
    """
    if isinstance(strategy, _REFUSED):
        raise ValueError(
            f"The model is trained under a {type(strategy).__name__}; expected "
            "MirroredStrategy, MultiWorkerMirroredStrategy or none."
        )
    extended = strategy.extended
    strangers = [
        variable.path
        for variable in variables
        if strategy.num_replicas_in_sync > 1
        and not extended.variable_created_in_scope(variable.value)
    ]
    if strangers:
        raise ValueError(
            f"{len(strangers)} variables, {strangers[:3]} among them, were "
            f"made outside of the scope of the {type(strategy).__name__}. "
            "Build the backbone, the IncrementalClassifier and the optimizer, "
            "and compile, in `with strategy.scope():`."
        )


def check_same(
    strategy: tf.distribute.Strategy,
    what: str,
    fact: Callable[[], object],
    advice: str,
) -> None:
    """Refuses workers that do not agree; all of them have to call it.

    Args:
        strategy: The model's.
        what: what they are to agree on, for the message.
        fact: called where there are several workers; returns this one's,
            anything with a `repr` that tells all of it.
        advice: how to put it right.

    Raises:
        ValueError: in every worker, if the facts differ.
    """
    if not is_multi_worker(strategy):
        return
    text = repr(fact())
    mine = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.int32)
    digests = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(mine)[tf.newaxis]
    )
    found = strategy.gather(digests, axis=0).numpy()
    if (found != found[0]).any():
        differing = np.flatnonzero((found != mine).any(axis=1)).tolist()
        raise ValueError(
            f"The workers do not have the same {what}. Replicas {differing} of "
            f"{len(found)} have another than this worker's, {text[:500]}. "
            + advice
        )


def split_batches(
    strategy: tf.distribute.Strategy, batches: tf.data.Dataset
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Splits global batches into parts for the replicas, in their order.

    The sizes of the parts of a batch differ by one at most; TensorFlow's own
    splitting rounds up, and the last replicas may get nothing.

    Args:
        strategy: The model's.
        batches: the same in every worker; structures of tensors, batch first.

    Returns:
        what Keras' `fit` takes; `batches` itself where there is one replica.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return batches

    def for_worker(context):
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local

        def parts(*batch):
            size = tf.shape(keras.tree.flatten(batch)[0], tf.int64)[0]

            def part(replica):
                start = replica * size // replicas
                stop = (replica + 1) * size // replicas
                return keras.tree.map_structure(
                    lambda rows: rows[start:stop], batch
                )

            return tf.data.Dataset.range(first, first + local).map(part)

        return batches.flat_map(parts)

    return strategy.distribute_datasets_from_function(for_worker)


# In the train step, in the context of a replica.


def number_of_replicas() -> int:
    """How many replicas share a global batch."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def share_of_global_mean(mean: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns `mean * count / sum of counts`, to be summed over replicas.

    Args:
        mean: scalar, over the samples of this replica.
        count: how many they are.
    """
    if number_of_replicas() == 1:
        return mean
    context = tf.distribute.get_replica_context()
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, count)
    return mean * tf.cast(count / total, mean.dtype)


def rows_of(network: Callable, inputs, count: tf.Tensor):
    """Returns `network(inputs)`, also for a replica that has got no sample.

    TensorFlow gives the replicas that a last batch is too small for a batch of
    no rows, and not every convolution takes that: they compute a row of zeros,
    which is left out of what is returned.

    Args:
        network: from inputs to a structure of tensors, batch first.
        inputs: structure of tensors, batch first.
        count: rows of the batch.
    """
    if number_of_replicas() == 1:
        return network(inputs)
    missing = tf.cast(tf.equal(count, 0), tf.int32)

    def filled(rows):
        return tf.pad(rows, [[0, missing], *[[0, 0]] * (len(rows.shape) - 1)])

    outputs = network(keras.tree.map_structure(filled, inputs))
    return keras.tree.map_structure(lambda rows: rows[:count], outputs)


def mean_or_zero(mean: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns the mean of a replica's samples, 0 if it has got none."""
    if number_of_replicas() == 1:
        return mean
    return tf.math.multiply_no_nan(
        mean, tf.cast(tf.minimum(count, 1), mean.dtype)
    )


def is_first_local_replica() -> bool:
    """Whether a step is traced for the first replica of this process."""
    context = tf.distribute.get_replica_context()
    strategy = context.strategy
    local = strategy.num_replicas_in_sync // _number_of_workers(strategy)
    index = tf.get_static_value(context.replica_id_in_sync_group)
    return index is None or int(index) % local == 0


# Around the train step.


def step_function(step: Callable, strategy: tf.distribute.Strategy) -> Callable:
    """Returns the function of `fit` or `evaluate` for several workers.

    Keras' own reduces the logs, which are scalars, over an axis that they do
    not have there (keras-team/keras#20585).

    Args:
        step: from a batch to logs, a dict of scalars.
        strategy: that splits the batches.

    Returns:
        from an iterator over distributed batches to the logs of the next one,
        the mean over replicas, float32.
    """

    @tf.function(reduce_retracing=True)
    def run(batch):
        batch = keras.tree.map_structure(_none_if_optional, batch)
        names = []

        def logs_in_one(batch):
            logs = step(batch)
            names[:] = logs
            return tf.stack([tf.cast(v, tf.float32) for v in logs.values()])

        values = strategy.run(logs_in_one, args=(batch,))
        mean = strategy.reduce("MEAN", values, axis=None)
        return dict(zip(names, tf.unstack(mean), strict=True))

    return tf.function(
        lambda iterator: run(next(iterator)), reduce_retracing=True
    )


def _none_if_optional(part):
    """Keras puts an empty `Optional` where a generator gives `None`."""
    return None if isinstance(part, tf.experimental.Optional) else part


def averaging(
    strategy: tf.distribute.Strategy, variables: Sequence[keras.Variable]
) -> Callable[[], None]:
    """Returns what gives variables that each replica moves their mean.

    Such are the moving statistics of `BatchNormalization`. Variables that are
    equal on all replicas stay equal bit for bit. All workers have to call it.
    """

    def in_replica():
        context = tf.distribute.get_replica_context()
        is_first = context.replica_id_in_sync_group == 0
        mine = [tf.convert_to_tensor(variable) for variable in variables]
        first = context.all_reduce(
            tf.distribute.ReduceOp.SUM,
            [tf.where(is_first, value, tf.zeros_like(value)) for value in mine],
        )
        gaps = context.all_reduce(
            tf.distribute.ReduceOp.MEAN,
            [value - start for value, start in zip(mine, first, strict=True)],
        )
        for variable, start, gap in zip(variables, first, gaps, strict=True):
            variable.assign(start + gap)

    return tf.function(lambda: strategy.run(in_replica))


def _number_of_workers(strategy: tf.distribute.Strategy) -> int:
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    cluster = strategy.cluster_resolver.cluster_spec()
    jobs = [job for job in cluster.jobs if job in ("chief", "worker")]
    return max(1, sum(cluster.num_tasks(job) for job in jobs))
