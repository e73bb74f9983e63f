"""Class-incremental methods: what each adds to plain training, a file each.

A method is a frozen dataclass of its knobs. It says how the model grows, which
phases a task has, and how a class is decided; `IncrementalCallback` runs it. To
add one, subclass `Method` and write `phases`.
"""

from keras_incremental.methods.eeil import EEIL
from keras_incremental.methods.fine_tune import FineTune
from keras_incremental.methods.joint import Joint
from keras_incremental.methods.method import Method
from keras_incremental.methods.partial_sharing import PartialSharing
from keras_incremental.methods.phase import ClosedFormPhase, Phase
from keras_incremental.methods.schedules import GradientNoise, StepDecay
from keras_incremental.methods.task_step import TaskStep

__all__ = [
    "EEIL",
    "ClosedFormPhase",
    "FineTune",
    "GradientNoise",
    "Joint",
    "Method",
    "PartialSharing",
    "Phase",
    "StepDecay",
    "TaskStep",
]
