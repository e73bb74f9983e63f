"""The teacher: a frozen twin of the network as it was at some moment."""

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.layers import ExpandableDense, finalize_normalizations

_BATCH = 256


class Teacher:
    """A copy of backbone and head whose weights are assigned, never trained.

    It is made once for a model: compiled functions that call it stay valid
    while `copy_from` moves it to another moment. It is a plain object, so that
    Keras neither trains it nor saves it with the model.

    Args:
        backbone: a Functional or Sequential model.
        head: the classification layer.
    """

    def __init__(self, backbone: keras.Model, head: ExpandableDense):
        self._backbone = keras.models.clone_model(backbone)
        self._head = ExpandableDense.from_config(head.get_config())
        self._head.build((None, backbone.output_shape[-1]))
        self._traced_logits = tf.function(self.logits, reduce_retracing=True)
        self.copy_from(backbone, head)

    def copy_from(self, backbone: keras.Model, head: ExpandableDense) -> None:
        """Takes over the present weights."""
        mine, theirs = self._backbone.weights, backbone.weights
        for copy, original in zip(mine, theirs, strict=True):
            copy.assign(original)
        finalize_normalizations(self._backbone)
        self._head.copy_from(head)

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """Returns `(batch, units)` logits in inference mode, no gradient."""
        features = self._backbone(images, training=False)
        return tf.stop_gradient(self._head(features))

    def all_logits(self, images: np.ndarray) -> np.ndarray:
        """Returns the logits of many images, of room for all units.

        Returns:
            `(samples, capacity)` float32; columns without a unit are 0.
        """
        rows = np.zeros((len(images), self._head.allocated), np.float32)
        for first in range(0, len(images), _BATCH):
            batch = tf.constant(images[first : first + _BATCH])
            logits = self._traced_logits(batch).numpy()
            rows[first : first + _BATCH, : logits.shape[1]] = logits
        return rows
