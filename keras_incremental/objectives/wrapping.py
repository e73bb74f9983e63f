"""What objectives that are made of another one have in common."""

import dataclasses

from keras_incremental.objectives.objective import Objective


@dataclasses.dataclass(frozen=True)
class Wrapping(Objective):
    """An objective that is another one's, changed by its `terms`.

    Args:
        objective: the other.
    """

    objective: Objective

    @property
    def term_names(self):
        return self.objective.term_names

    @property
    def needs_teacher(self):
        return self.objective.needs_teacher

    @property
    def distils(self):
        return self.objective.distils

    def with_counts(self, images_per_class):
        return dataclasses.replace(
            self, objective=self.objective.with_counts(images_per_class)
        )
