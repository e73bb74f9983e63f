"""An objective that sees logits with a scale and a bias for each class."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_incremental.objectives.wrapping import Wrapping


@dataclasses.dataclass(frozen=True)
class Corrected(Wrapping):
    """Another objective, of `scales * z + biases` in place of the logits `z`.

    The teacher's logits are corrected alike. Scales and biases are constants.

    Source: the bias layers of BiC (Wu et al., CVPR 2019, arXiv:1905.13260),
    which are fixed while the network is trained.

    Args:
        objective: of the corrected logits.
        scales, biases: `(classes,)`, one for each trained class.

    >>> from keras_incremental.objectives import CrossEntropy
    >>> Corrected(CrossEntropy(), np.ones(2), np.zeros(2)).needs_teacher
    False
    """

    scales: np.ndarray = dataclasses.field(compare=False)
    biases: np.ndarray = dataclasses.field(compare=False)

    def terms(self, batch):
        def corrected(logits):
            scales, biases = (
                tf.cast(values, tf.float32)
                for values in (self.scales, self.biases)
            )
            return tf.cast(logits, tf.float32) * scales + biases

        return self.objective.terms(
            dataclasses.replace(
                batch,
                logits=corrected(batch.logits),
                teacher_logits=lambda: corrected(batch.teacher_logits()),
            )
        )
