"""An objective whose teacher is a linear classifier on frozen features."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_incremental.objectives.wrapping import Wrapping


@dataclasses.dataclass(frozen=True)
class OldClassifier(Wrapping):
    """Another objective, with the old classifier on old features as teacher.

    `teacher logits = f W + b`, of the first features `f`. Where these are
    frozen, they are what they were for the old network, whose logits follow by
    one product: no teacher network is kept, nor run.

    Source: ours.

    Args:
        objective: the other; it distils old classes alone.
        kernel: `(old features, old classes)`.
        bias: `(old classes,)`.

    >>> from keras_incremental.objectives import CrossDistilled
    >>> OldClassifier(
    ...     CrossDistilled(2), np.ones((8, 2)), np.zeros(2)).needs_teacher
    False
    """

    kernel: np.ndarray = dataclasses.field(compare=False)
    bias: np.ndarray = dataclasses.field(compare=False)

    needs_teacher = False

    def terms(self, batch):
        def old_logits():
            kernel = tf.cast(self.kernel, tf.float32)
            features = batch.features[:, : tf.shape(kernel)[0]]
            logits = tf.cast(features, tf.float32) @ kernel + self.bias
            return tf.stop_gradient(logits)

        return self.objective.terms(
            dataclasses.replace(batch, teacher_logits=old_logits)
        )
