"""The cross-distilled loss of EEIL."""

import dataclasses

import tensorflow as tf

from keras_incremental.losses import distillation_loss
from keras_incremental.objectives.cross_entropy import CrossEntropy
from keras_incremental.objectives.objective import Objective


@dataclasses.dataclass(frozen=True)
class CrossDistilled(Objective):
    """Classification over all classes plus distillation of each old head.

    `L = L_C + sum over distilled heads f of L_Df`
    (`keras_incremental.losses.distillation_loss`), no weights between the
    terms.

    Source: EEIL (Castro et al., ECCV 2018, arXiv:1807.09536), Eq. 1.

    Args:
        distilled_units: the first so many classes are distilled, head by head;
            0 for none.
        temperature: T of the distillation (2, section 3.1).
        classification: the objective beside it, with one term.

    >>> CrossDistilled(distilled_units=10).temperature
    2.0
    """

    distilled_units: int = 0
    temperature: float = 2.0
    classification: Objective = CrossEntropy()

    term_names = ("classification", "distillation")
    needs_teacher = True

    @property
    def distils(self):
        return self.distilled_units > 0

    def with_counts(self, images_per_class):
        classification = self.classification.with_counts(images_per_class)
        return dataclasses.replace(self, classification=classification)

    def terms(self, batch):
        def distilled():
            return distillation_loss(
                batch.logits,
                batch.teacher_logits(),
                batch.head_of_unit,
                self.distilled_units,
                self.temperature,
            )

        nothing = tf.zeros_like(batch.units, tf.float32)
        return {
            **self.classification.terms(batch),
            "distillation": tf.cond(
                self.distilled_units > 0, distilled, lambda: nothing
            ),
        }
