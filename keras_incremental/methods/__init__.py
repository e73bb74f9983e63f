"""Class-incremental methods: what each adds to plain training, a file each.

A method is a frozen dataclass of its knobs. It says which phases a step has;
the callback runs them. To add one, subclass `Method` and write `phases`; to
run it by name from a command line, add it to `BY_NAME`.
"""

from keras_incremental.methods.eeil import EEIL
from keras_incremental.methods.fine_tune import FineTune
from keras_incremental.methods.joint import Joint
from keras_incremental.methods.method import Method, Phase, Plan, Step
from keras_incremental.methods.partial_sharing import PartialSharing
from keras_incremental.methods.schedules import GradientNoise, StepDecay

# The names of methods on a command line; each with its defaults.
BY_NAME = {
    "eeil": EEIL(),
    "finetune": FineTune(),
    "joint": Joint(),
    "partial_sharing": PartialSharing(),
}

__all__ = [
    "BY_NAME",
    "EEIL",
    "FineTune",
    "GradientNoise",
    "Joint",
    "Method",
    "PartialSharing",
    "Phase",
    "Plan",
    "Step",
    "StepDecay",
]
