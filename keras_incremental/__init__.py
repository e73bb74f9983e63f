"""Class-incremental learning for Keras image classifiers.

Teach a trained classifier new classes without forgetting the old ones:

    import keras_incremental as ki

    model = ki.IncrementalClassifier(ki.backbones.resnet32((32, 32, 3)))
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    step = ki.IncrementalCallback(ki.ExemplarMemory(2000), ki.EEIL())
    model.fit(new_images, new_labels, epochs=40, callbacks=[step])
"""

from keras_incremental._backend import check_backend

check_backend()

# ruff: noqa: E402  (the backend is checked before anything else is imported)
from keras_incremental import (
    augmentation,
    backbones,
    closed_form,
    cost,
    distribution,
    exemplars,
    export,
    graphs,
    hub,
    layers,
    losses,
    methods,
    metrics,
    model_files,
    networks,
    objectives,
    reports,
    scenarios,
    score_rules,
    sharing,
    trackers,
)
from keras_incremental._version import __version__
from keras_incremental.callbacks import IncrementalCallback
from keras_incremental.exemplars import ExemplarMemory
from keras_incremental.layers import ExpandableDense
from keras_incremental.methods import (
    EEIL,
    Analytic,
    BiC,
    BranchedRehearsal,
    FineTune,
    ICaRL,
    Joint,
    LwFMC,
    Method,
    PartialSharing,
    Replay,
    SeparatedSoftmax,
    WeightAligning,
)
from keras_incremental.models import IncrementalClassifier
from keras_incremental.scenarios import ClassIncrementalScenario

__all__ = [
    "EEIL",
    "Analytic",
    "BiC",
    "BranchedRehearsal",
    "ClassIncrementalScenario",
    "ExemplarMemory",
    "ExpandableDense",
    "FineTune",
    "ICaRL",
    "IncrementalCallback",
    "IncrementalClassifier",
    "Joint",
    "LwFMC",
    "Method",
    "PartialSharing",
    "Replay",
    "SeparatedSoftmax",
    "WeightAligning",
    "__version__",
    "augmentation",
    "backbones",
    "closed_form",
    "cost",
    "distribution",
    "exemplars",
    "export",
    "graphs",
    "hub",
    "layers",
    "losses",
    "methods",
    "metrics",
    "model_files",
    "networks",
    "objectives",
    "reports",
    "scenarios",
    "score_rules",
    "sharing",
    "trackers",
]
