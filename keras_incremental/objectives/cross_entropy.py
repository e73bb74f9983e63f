"""Cross-entropy over all classes."""

import dataclasses

from keras_incremental.losses import classification_loss
from keras_incremental.objectives.objective import Objective


@dataclasses.dataclass(frozen=True)
class CrossEntropy(Objective):
    """Softmax cross-entropy over all trained classes, or the compiled loss.

    `-log softmax(z)_y`, or what was passed as `model.compile(loss=...)`.

    >>> CrossEntropy().term_names
    ('classification',)
    """

    def terms(self, batch):
        if batch.compiled_loss is not None:
            return {"classification": batch.compiled_loss()}
        loss = classification_loss(batch.units, batch.logits)
        return {"classification": loss}
