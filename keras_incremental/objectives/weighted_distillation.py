"""Cross-entropy and distillation, weighted by the share of old classes."""

import dataclasses

import tensorflow as tf

from keras_incremental.losses import classification_loss
from keras_incremental.objectives.distilling import Distilling


@dataclasses.dataclass(frozen=True)
class WeightedDistillation(Distilling):
    """`(1 - l) CE + l KD`, with `l = n_old / n` and all old classes as one.

    CE is the softmax cross-entropy over all `n` classes, KD the distillation
    over one softmax of the `n_old` old ones at temperature T, without a factor
    T^2.

    Source: BiC (Wu et al., CVPR 2019, arXiv:1905.13260), Eqs. 1 to 3; weight
    aligning (Zhao et al., CVPR 2020, arXiv:1911.07053), Eqs. 3 and 4.

    Args:
        distilled_units: `n_old`, the first so many classes.
        old_share: `l`, 0 to 1.
        temperature: T.

    >>> WeightedDistillation(10, old_share=0.5).temperature
    2.0
    """

    old_share: float
    temperature: float = 2.0

    def terms(self, batch):
        loss = classification_loss(batch.units, batch.logits)
        one_head = tf.zeros_like(batch.head_of_unit)
        kept = self.distillation(batch, one_head, self.temperature)
        return {
            "classification": (1.0 - self.old_share) * loss,
            "distillation": self.old_share * kept,
        }
