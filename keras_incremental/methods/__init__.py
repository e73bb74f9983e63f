"""Class-incremental methods: what each adds to plain training, a file each.

A method is a frozen dataclass of its knobs. It says how the model grows, which
phases a task has, and how a class is decided; `IncrementalCallback` runs it. To
add one, subclass `Method` and write `phases`; to run it by name from a command
line, add it to `BY_NAME`.
"""

from keras_incremental.methods.analytic import Analytic
from keras_incremental.methods.bic import BiC
from keras_incremental.methods.branched_rehearsal import BranchedRehearsal
from keras_incremental.methods.eeil import EEIL
from keras_incremental.methods.fine_tune import FineTune
from keras_incremental.methods.icarl import ICaRL
from keras_incremental.methods.joint import Joint
from keras_incremental.methods.lwf_mc import LwFMC
from keras_incremental.methods.method import Method
from keras_incremental.methods.partial_sharing import PartialSharing
from keras_incremental.methods.phase import ClosedFormPhase, Phase
from keras_incremental.methods.replay import Replay
from keras_incremental.methods.schedules import GradientNoise, StepDecay
from keras_incremental.methods.separated_softmax import SeparatedSoftmax
from keras_incremental.methods.task_step import TaskStep
from keras_incremental.methods.weight_aligning import WeightAligning

BY_NAME = {
    "eeil": EEIL(),
    "finetune": FineTune(),
    "joint": Joint(),
    "partial_sharing": PartialSharing(),
    "icarl": ICaRL(),
    "hybrid1": ICaRL(decide="argmax"),
    "lwf_mc": LwFMC(),
    "wa": WeightAligning(),
    "bic": BiC(),
    "ssil": SeparatedSoftmax(),
    "replay": Replay(),
    "analytic": Analytic(),
    "branched_rehearsal": BranchedRehearsal(),
}
"""The names of methods on a command line, each with its defaults."""

__all__ = [
    "BY_NAME",
    "EEIL",
    "Analytic",
    "BiC",
    "BranchedRehearsal",
    "ClosedFormPhase",
    "FineTune",
    "GradientNoise",
    "ICaRL",
    "Joint",
    "LwFMC",
    "Method",
    "PartialSharing",
    "Phase",
    "Replay",
    "SeparatedSoftmax",
    "StepDecay",
    "TaskStep",
    "WeightAligning",
]
