"""Measured seconds of inference and of training steps."""

import contextlib
import random
import statistics
import time
import timeit
from collections.abc import Callable, Hashable, Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.graphs import clone_network, cloned_layer

_WARM_UP_CALLS = 2
_MIN_ROUNDS = 5
_MAX_ROUNDS = 20
_MAX_SECONDS = 20.0


def median_seconds(
    steps: Mapping[Hashable, Callable[[], object]],
) -> dict[Hashable, float]:
    """Times functions in turns, so that a slow moment falls on all of them.

    After a warm-up there are 5 to 20 rounds, the fewer the slower; each round
    calls every function once.

    Args:
        steps: functions that return when their work is done.

    Returns:
        The median seconds of one call of each function.

    >>> seconds = median_seconds({"a": lambda: time.sleep(0.002)})
    >>> 0.002 <= seconds["a"] < 1.0
    True
    """
    for step in steps.values():
        for _ in range(_WARM_UP_CALLS):
            step()
    durations: dict[Hashable, list[float]] = {key: [] for key in steps}
    start = time.perf_counter()
    for count in range(_MAX_ROUNDS):
        spent = time.perf_counter() - start
        if count >= _MIN_ROUNDS and spent > _MAX_SECONDS:
            break
        for key, step in steps.items():
            durations[key].append(timeit.timeit(step, number=1))
    return {key: statistics.median(all_) for key, all_ in durations.items()}


def inference_step(
    network: keras.Model, head, inputs: tf.Tensor
) -> Callable[[], float]:
    """Returns a function that runs one batch through a network and a head.

    Nothing that the layers hold changes.

    Args:
        network: As for `count_part`.
        head: a layer on its outputs, or None.
        inputs: one batch.
    """

    def forward(batch):
        outputs = network(batch, training=False)
        if head is not None:
            outputs = head(outputs)
        # One number, so that waiting for it copies nothing large.
        return tf.reduce_mean(tf.cast(outputs, tf.float32))

    function = tf.function(forward, autograph=False)
    return lambda: float(function(inputs))


def training_step(
    network: keras.Model, head, inputs: tf.Tensor
) -> Callable[[], float]:
    """Returns a function that trains a clone for one step.

    Forward, backward and update: cross-entropy on arbitrary labels, SGD with
    momentum. The clones of `network` and `head` are made here, trainable as a
    whole; the originals stay as they are.

    Args:
        network: As for `count_part`.
        head: an `ExpandableDense` of one unit or more.
        inputs: one batch.
    """
    network = clone_network(network, width=1)
    head = cloned_layer(head, trainable=True)
    head.build(network.output_shape)
    labels = tf.range(len(inputs)) % head.units
    variables = network.trainable_variables + head.trainable_variables
    optimizer = keras.optimizers.SGD(1e-4, momentum=0.9)
    optimizer.build(variables)

    def train(batch):
        with tf.GradientTape() as tape:
            logits = tf.cast(head(network(batch, training=True)), tf.float32)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            )
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    function = tf.function(train, autograph=False)
    return lambda: float(function(inputs))


def random_images(network: keras.Model, batch_size: int) -> tf.Tensor:
    """Returns a batch of pixels in [0, 255] that a network takes."""
    source = network.inputs[0]
    shape = (batch_size, *source.shape[1:])
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return tf.cast(pixels, source.dtype)


@contextlib.contextmanager
def unchanged_random_state():
    """Sets Python's random state back, from which Keras draws its seeds."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
