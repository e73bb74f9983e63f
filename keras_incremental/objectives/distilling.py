"""What objectives that distil the first classes have in common."""

import dataclasses

import tensorflow as tf

from keras_incremental.losses import distillation_loss
from keras_incremental.objectives.objective import Batch, Objective


@dataclasses.dataclass(frozen=True)
class Distilling(Objective):
    """A classification term, and one that follows the teacher.

    Args:
        distilled_units: the first so many classes are distilled; 0 for none,
            and then the teacher does not run.
    """

    distilled_units: int

    term_names = ("classification", "distillation")
    needs_teacher = True

    @property
    def distils(self):
        return self.distilled_units > 0

    def distillation(
        self, batch: Batch, head_of_unit: tf.Tensor, temperature: tf.Tensor
    ) -> tf.Tensor:
        """Returns the `distillation_loss` of a batch, 0 where none is wanted.

        Args:
            batch: of the train step.
            head_of_unit: `(units,)` integers, the softmax that each unit is in.
            temperature: T.
        """

        def distilled():
            return distillation_loss(
                batch.logits,
                batch.teacher_logits(),
                head_of_unit,
                self.distilled_units,
                temperature,
            )

        return tf.cond(
            self.distilled_units > 0,
            distilled,
            lambda: tf.zeros_like(batch.units, tf.float32),
        )
