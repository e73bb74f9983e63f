"""The binary cross-entropies of iCaRL."""

import dataclasses

import tensorflow as tf

from keras_incremental.objectives.distilling import Distilling


@dataclasses.dataclass(frozen=True)
class SigmoidDistilled(Distilling):
    """A binary cross-entropy for each class, old ones by the teacher.

    `sum_c BCE(t_c, sigmoid(z_c)) / classes`. The target `t_c` of a new class
    is 1 for its images and 0 for all others; that of an old class is the
    teacher's sigmoid, for exemplars as well, whatever their label.

    Source: iCaRL (Rebuffi et al., CVPR 2017, arXiv:1611.07725), Algorithm 3;
    the mean over classes is that of the authors' code.

    Args:
        distilled_units: the first so many classes have the teacher's targets.
        classes: what the sum is divided by.

    >>> SigmoidDistilled(distilled_units=10, classes=100).term_names
    ('classification', 'distillation')
    """

    classes: int

    def terms(self, batch):
        logits = tf.cast(batch.logits, tf.float32)
        units = tf.shape(logits)[1]
        is_old = tf.range(units) < self.distilled_units
        targets = tf.one_hot(batch.units, units)

        def teacher():
            return tf.sigmoid(tf.cast(batch.teacher_logits(), tf.float32))

        taught = tf.cond(
            self.distilled_units > 0, teacher, lambda: tf.zeros_like(logits)
        )
        losses = tf.nn.sigmoid_cross_entropy_with_logits(
            labels=tf.stop_gradient(tf.where(is_old, taught, targets)),
            logits=logits,
        ) / tf.cast(self.classes, tf.float32)
        old = tf.where(is_old, losses, 0.0)
        return {
            "classification": tf.reduce_sum(losses - old, axis=-1),
            "distillation": tf.reduce_sum(old, axis=-1),
        }
