"""The cross-distilled loss of EEIL."""

import dataclasses

from keras_incremental.objectives.cross_entropy import CrossEntropy
from keras_incremental.objectives.distilling import Distilling
from keras_incremental.objectives.objective import Objective


@dataclasses.dataclass(frozen=True)
class CrossDistilled(Distilling):
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

    def with_counts(self, images_per_class):
        classification = self.classification.with_counts(images_per_class)
        return dataclasses.replace(self, classification=classification)

    def terms(self, batch):
        return {
            **self.classification.terms(batch),
            "distillation": self.distillation(
                batch, batch.head_of_unit, self.temperature
            ),
        }
