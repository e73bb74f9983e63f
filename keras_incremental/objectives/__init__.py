"""What is minimised: a method gives each of its phases an objective.

The pure functions that objectives are made of are in
`keras_incremental.losses`.
"""

from keras_incremental.objectives.cross_distilled import CrossDistilled
from keras_incremental.objectives.cross_entropy import CrossEntropy
from keras_incremental.objectives.objective import (
    Batch,
    Objective,
    TracedObjective,
)

__all__ = [
    "Batch",
    "CrossDistilled",
    "CrossEntropy",
    "Objective",
    "TracedObjective",
]
