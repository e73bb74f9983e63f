"""Cross-entropies of old and of new classes, each by its own softmax."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_incremental.losses import classification_loss
from keras_incremental.objectives.distilling import Distilling


@dataclasses.dataclass(frozen=True)
class SeparatedSoftmax(Distilling):
    """CE over the new classes or over the old ones, and distillation by head.

    An image of a new class has the cross-entropy over the new classes alone, an
    exemplar that over the old classes alone; so the many new images do not push
    the old logits down. Distillation is that of each old head, on all images,
    times T^2. Both are weighted means in which exemplars have a fixed share.

    Source: SS-IL (Ahn et al., ICCV 2021, arXiv:2003.13947), Eqs. 4 to 6. Their
    batches are made of 128 new images and 32 exemplars; here images have
    weights, so that they count as much in an epoch of any mixture.

    No term compares a new class with an old one: the loss stays as it is where
    a number is added to all new logits. Their level beside the old ones is left
    to what the softmaxes have in common, which few classes a task hardly fix.

    Args:
        distilled_units: the first so many classes are old.
        temperature: T.
        exemplar_share: share of the exemplars in the means, above 0, below 1.
        images_per_class: `(classes,)`, images of each class in the phase; by
            default they are counted at its start.

    >>> SeparatedSoftmax(distilled_units=10).exemplar_share
    0.2
    """

    temperature: float = 2.0
    exemplar_share: float = 0.2
    images_per_class: np.ndarray | None = dataclasses.field(
        default=None, compare=False
    )

    def with_counts(self, images_per_class):
        return dataclasses.replace(self, images_per_class=images_per_class)

    def terms(self, batch):
        logits = tf.cast(batch.logits, tf.float32)
        is_old_unit = tf.range(tf.shape(logits)[1]) < self.distilled_units
        is_old = tf.cast(batch.units, tf.int32) < self.distilled_units
        is_own = tf.equal(is_old[:, tf.newaxis], is_old_unit[tf.newaxis])
        separated = tf.where(is_own, logits, logits.dtype.min)
        weight = self._weights(is_old, is_old_unit)
        distillation = self.temperature**2 * self.distillation(
            batch, batch.head_of_unit, self.temperature
        )
        loss = classification_loss(batch.units, separated)
        return {
            "classification": weight * loss,
            "distillation": weight * distillation,
        }

    def _weights(self, is_old, is_old_unit):
        """Returns a weight for each image, 1 where there is one kind alone."""
        counts = tf.cast(self.images_per_class, tf.float32)
        total = tf.reduce_sum(counts)
        share = tf.reduce_sum(tf.where(is_old_unit, counts, 0.0)) / total
        wanted = tf.where(
            (share > 0.0) & (share < 1.0), self.exemplar_share, share
        )
        return tf.where(
            is_old,
            tf.math.divide_no_nan(wanted, share),
            tf.math.divide_no_nan(1.0 - wanted, 1.0 - share),
        )
