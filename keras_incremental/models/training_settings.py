"""What may change between two steps without a new trace."""

import tensorflow as tf


class TrainingSettings:
    """Variables that the train step reads; a callback assigns them.

    They are kept in a plain object, so that they are not saved as weights.

    Attributes:
        distilled_units: int32, the first so many units are distilled.
        temperature: float32, T of the distillation.
        noise_stddev: float32, standard deviation of the Gaussian noise added
            to each component of the batch-mean gradient; 0 for none.
        noise_seed: int64 `(2,)`.
    """

    def __init__(self):
        self.distilled_units = _variable(0, tf.int32)
        self.temperature = _variable(2.0, tf.float32)
        self.noise_stddev = _variable(0.0, tf.float32)
        self.noise_seed = _variable([0, 0], tf.int64)

    def reset(self) -> None:
        """Goes back to plain training: no distillation, no noise."""
        self.distilled_units.assign(0)
        self.noise_stddev.assign(0.0)


def _variable(value, dtype) -> tf.Variable:
    return tf.Variable(value, dtype=dtype, trainable=False)


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
