"""Gaussian noise on gradients, set without a new trace."""

import tensorflow as tf


class NoiseSettings:
    """Variables that the train step reads; a phase assigns them.

    They are kept in a plain object, so that they are not saved as weights.

    Attributes:
        stddev: float32, standard deviation of the Gaussian noise added to each
            component of the batch-mean gradient; 0 for none.
        seed: int64 `(2,)`.
    """

    def __init__(self):
        self.stddev = tf.Variable(0.0, dtype=tf.float32, trainable=False)
        self.seed = tf.Variable([0, 0], dtype=tf.int64, trainable=False)


def add_noise(gradients, stddev, seed, loss_scale=1.0):
    """Returns the gradients plus Gaussian noise.

    Source: Neelakantan et al. 2015 (arXiv:1511.06807), section 3, as EEIL
    uses it.

    Args:
        gradients: list of tensors or `None`.
        stddev: float32 scalar tensor; nothing is drawn where it is 0.
        seed: int64 `(2,)`; the same seed draws the same noise.
        loss_scale: the gradients are multiplied by this already, and so is
            the noise.
    """

    def noisy():
        return [
            gradient
            + tf.cast(
                tf.random.stateless_normal(
                    tf.shape(gradient),
                    tf.random.experimental.stateless_fold_in(seed, index),
                    stddev=stddev * loss_scale,
                ),
                gradient.dtype,
            )
            for index, gradient in enumerate(dense)
        ]

    dense = [
        tf.convert_to_tensor(item) for item in gradients if item is not None
    ]
    results = iter(tf.cond(stddev > 0, noisy, lambda: dense))
    return [None if item is None else next(results) for item in gradients]
