"""Batch normalisation by one fused operation of TensorFlow."""

import keras
import tensorflow as tf

_FUSED_DTYPES = ("float32", "float16", "bfloat16")


@keras.saving.register_keras_serializable(package="keras_incremental")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, computed by one fused operation.

    Keras computes mean, variance and the normalised values by an operation
    each, and so its gradient; TensorFlow has one operation for all of it, which
    `benchmarks/train_step.py` compares. Arguments, weights and results are
    those of Keras, to float rounding: the moving variance follows the biased
    variance of a batch, as Keras' does, where that of the fused operation is
    unbiased.

    What is fused are images, `(batch, height, width, channels)`, normalised
    over the last axis with scale and offset. Everything else, a mask, and
    statistics over several devices (`synchronized=True`) are left to Keras; so
    is a frozen layer in training, whose gradient TensorFlow cannot compute
    deterministically on a GPU.

    Source: Ioffe and Szegedy 2015 (arXiv:1502.03167), Algorithm 1.

    >>> layer = FusedBatchNormalization()
    >>> layer(np.ones((2, 4, 4, 3), "float32"), training=True).shape
    TensorShape([2, 4, 4, 3])
    """

    def build(self, input_shape):
        super().build(input_shape)
        self._can_fuse = (
            len(input_shape) == 4
            and self.axis in (-1, 3)
            and self.scale
            and self.center
            and not self.synchronized
            and self.compute_dtype in _FUSED_DTYPES
        )

    def call(self, inputs, training=None, mask=None):
        is_frozen = training and not self.trainable
        if not self._can_fuse or mask is not None or is_frozen:
            return super().call(inputs, training=training, mask=mask)
        if training:
            return self._normalize_batch(inputs)
        return self._fused(
            inputs, self.moving_mean, self.moving_variance, is_training=False
        ).y

    def _normalize_batch(self, inputs):
        """Normalises by the batch's own statistics, and follows them."""
        nothing = tf.zeros([0])
        fused = self._fused(inputs, nothing, nothing, is_training=True)
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        unbiased_by = count / tf.maximum(count - 1.0, 1.0)
        self._follow(self.moving_mean, fused.batch_mean)
        self._follow(self.moving_variance, fused.batch_variance / unbiased_by)
        return fused.y

    def _fused(self, inputs, mean, variance, is_training):
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.cast(self.gamma, tf.float32),
            offset=tf.cast(self.beta, tf.float32),
            mean=tf.cast(mean, tf.float32),
            variance=tf.cast(variance, tf.float32),
            epsilon=self.epsilon,
            is_training=is_training,
        )

    def _follow(self, moving, batch):
        moving.assign(
            moving * self.momentum
            + tf.cast(batch, moving.dtype) * (1.0 - self.momentum)
        )
