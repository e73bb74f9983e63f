"""The moving statistics of batch normalisation, measured over given data."""

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.networks import (
    Network,
    all_layers,
    traced,
    trained_outputs,
)


class BatchStatistics:
    """Measures mean and variance of what a network's layers normalise.

    A moving statistic follows those of the batches at the pace of the layer's
    momentum: at Keras' default of 0.99 it takes several hundred steps to forget
    where it began. Here it becomes the mean over all batches instead, whatever
    the momentum is. The layers are those that training moves, so frozen ones
    stay as they are. A plain object; its function is traced once.

    Source: Izmailov et al. 2018 (arXiv:1803.05407), Algorithm 1, last line,
    where the statistics of averaged weights are measured in the same way.

    Args:
        network: whose trained part is run, in training mode.
        strategy: The model's, a `tf.distribute.Strategy`.
    """

    def __init__(self, network: Network, strategy: tf.distribute.Strategy):
        self._layers = moving_normalizations(network)
        self._variables = _statistics(self._layers)
        self._network, self._strategy = network, strategy
        # One trace for all sizes, so that a resumed run has the same one.
        self._of_batch = traced(self._in_first_replica)

    def fits(self, network: Network) -> bool:
        """Whether the network still has the same layers to measure."""
        found = _statistics(moving_normalizations(network))
        return [*map(id, found)] == [*map(id, self._variables)]

    def measure(self, batches: Iterable) -> None:
        """Sets the statistics to their mean over batches.

        Args:
            batches: of columns, `{"images": ...}` or `{"frozen": ...}`.
        """
        if not self._layers:
            return
        total, count = 0.0, 0
        for columns in batches:
            total = total + np.concatenate(
                [part.numpy().ravel() for part in self._of_batch(columns)],
                dtype=np.float64,
            )
            count += 1
        ends = np.cumsum([np.prod(v.shape, dtype=int) for v in self._variables])
        means = np.split(total / count, ends[:-1])
        for variable, mean in zip(self._variables, means, strict=True):
            variable.assign(mean.reshape(variable.shape))

    def _in_first_replica(self, columns) -> list[tf.Tensor]:
        """Returns the statistics of a batch, all of it in every replica."""
        found = self._strategy.run(self._in_replica, args=(columns,))
        return [
            self._strategy.experimental_local_results(part)[0] for part in found
        ]

    def _in_replica(self, columns) -> list[tf.Tensor]:
        for variable in self._variables:
            variable.assign(tf.zeros_like(variable))
        trained_outputs(self._network, columns, training=True)
        # They were 0, so they are (1 - momentum) * the batch's now.
        return [
            tf.cast(variable, tf.float32) / (1.0 - layer.momentum)
            for layer in self._layers
            for variable in _statistics([layer])
        ]


def moving_normalizations(
    network: keras.layers.Layer,
) -> list[keras.layers.BatchNormalization]:
    """Returns the batch-normalisation layers that training moves."""
    return [
        layer
        for layer in all_layers(network)
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
        and layer.momentum < 1
    ]


def _statistics(layers: Iterable) -> list[keras.Variable]:
    return [
        variable
        for layer in layers
        for variable in (layer.moving_mean, layer.moving_variance)
    ]
