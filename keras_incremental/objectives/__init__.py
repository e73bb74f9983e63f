"""What is minimised: a method gives each of its phases an objective.

The pure functions that objectives are made of are in
`keras_incremental.losses`.
"""

from keras_incremental.objectives.auxiliary import Auxiliary
from keras_incremental.objectives.balanced_softmax import BalancedSoftmax
from keras_incremental.objectives.corrected import Corrected
from keras_incremental.objectives.cross_distilled import CrossDistilled
from keras_incremental.objectives.cross_entropy import CrossEntropy
from keras_incremental.objectives.objective import (
    Batch,
    Objective,
    TracedObjective,
)
from keras_incremental.objectives.old_classifier import OldClassifier
from keras_incremental.objectives.separated_softmax import SeparatedSoftmax
from keras_incremental.objectives.sigmoid_distilled import SigmoidDistilled
from keras_incremental.objectives.weighted_distillation import (
    WeightedDistillation,
)

__all__ = [
    "Auxiliary",
    "BalancedSoftmax",
    "Batch",
    "Corrected",
    "CrossDistilled",
    "CrossEntropy",
    "Objective",
    "OldClassifier",
    "SeparatedSoftmax",
    "SigmoidDistilled",
    "TracedObjective",
    "WeightedDistillation",
]
