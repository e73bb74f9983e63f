"""An objective with an auxiliary classifier on the newest features."""

import dataclasses

import keras
import tensorflow as tf

from keras_incremental.losses import classification_loss
from keras_incremental.objectives.wrapping import Wrapping


@dataclasses.dataclass(frozen=True)
class Auxiliary(Wrapping):
    """Another objective, plus an auxiliary loss on the newest features alone.

    `weight * -log softmax(g(f))_t`, `t = max(0, y - n_old + 1)`: the auxiliary
    classifier `g` tells each new class, and as class 0 all old ones, by the
    features `f` of the newest branch. So the branch learns what the new classes
    need, whatever the other branches know already.

    Source: DER (Yan et al., CVPR 2021, arXiv:2103.16788), Eq. 6; MEMO (Zhou et
    al., ICLR 2023, arXiv:2205.13218).

    Args:
        objective: the other.
        classifier: a built `Dense` layer of `n_new + 1` units, as in
            `OneHeadNetwork.auxiliary`; the last features are its inputs.
        old_units: the first so many classes are old.
        weight: of the auxiliary loss.

    >>> from keras_incremental.objectives import CrossEntropy
    >>> classifier = keras.layers.Dense(3)
    >>> classifier.build((None, 8))
    >>> Auxiliary(CrossEntropy(), classifier, old_units=10).term_names
    ('classification', 'auxiliary')
    """

    classifier: keras.layers.Dense
    old_units: int
    weight: float = 1.0

    @property
    def term_names(self):
        return (*self.objective.term_names, "auxiliary")

    def terms(self, batch):
        features = batch.features[:, -self.classifier.kernel.shape[0] :]
        targets = tf.maximum(
            tf.cast(batch.units, tf.int32) - self.old_units + 1, 0
        )
        loss = classification_loss(targets, self.classifier(features))
        return {
            **self.objective.terms(batch),
            "auxiliary": self.weight * loss,
        }
