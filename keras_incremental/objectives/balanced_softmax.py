"""Softmax cross-entropy that allows for unequal numbers of images."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_incremental.losses import classification_loss
from keras_incremental.objectives.objective import Objective


@dataclasses.dataclass(frozen=True)
class BalancedSoftmax(Objective):
    """Cross-entropy of `z + log(n_c / sum n)`, `n_c` images of class `c`.

    New classes have many images in a phase and old ones a few exemplars. With
    the logarithm of each class's share added while training, the plain logits,
    which decide afterwards, are those of a classifier for equal shares. It
    takes the place of a balanced second stage.

    Source: Ren et al., NeurIPS 2020 (arXiv:2007.10740), Eq. 4.

    Args:
        images_per_class: `(classes,)`, images of each class in the phase; by
            default they are counted at its start. A class without an image
            counts as one.

    >>> BalancedSoftmax().with_counts(np.array([90, 10])).images_per_class
    array([90, 10])
    """

    images_per_class: np.ndarray | None = dataclasses.field(
        default=None, compare=False
    )

    def with_counts(self, images_per_class):
        if self.images_per_class is not None:
            return self
        return dataclasses.replace(self, images_per_class=images_per_class)

    def terms(self, batch):
        counts = tf.maximum(tf.cast(self.images_per_class, tf.float32), 1.0)
        prior = tf.math.log(counts / tf.reduce_sum(counts))
        logits = tf.cast(batch.logits, tf.float32) + prior
        loss = classification_loss(batch.units, logits)
        return {"classification": loss}
