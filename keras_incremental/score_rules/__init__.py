"""How a class is decided: by the logits, or by a rule a method has set.

A rule is a Keras layer `(features, logits) -> scores` and a part of the model.
To add one, subclass `ScoreRule`, register it with `keras.saving`, and set
`model.score_rule` in the `finish` of a method.
"""

from keras_incremental.score_rules.affine_per_head import AffinePerHead
from keras_incremental.score_rules.beside_closed_form import BesideClosedForm
from keras_incremental.score_rules.closed_form import ClosedForm
from keras_incremental.score_rules.nearest_mean import NearestMean
from keras_incremental.score_rules.score_rule import ScoreRule

__all__ = [
    "AffinePerHead",
    "BesideClosedForm",
    "ClosedForm",
    "NearestMean",
    "ScoreRule",
]
