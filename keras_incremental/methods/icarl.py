"""iCaRL and its hybrid (Rebuffi et al., CVPR 2017)."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_incremental.methods.method import Method, check_count
from keras_incremental.methods.phase import Phase
from keras_incremental.methods.schedules import StepDecay
from keras_incremental.methods.task_step import TaskStep
from keras_incremental.objectives import SigmoidDistilled
from keras_incremental.score_rules import NearestMean

_DECISIONS = ("nearest_mean", "argmax")


@dataclasses.dataclass(frozen=True)
class ICaRL(Method):
    """Sigmoids with distillation, exemplars, and the nearest mean of them.

    1. Training on new data and all exemplars by one binary cross-entropy a
       class; the targets of **all** old classes are the sigmoids of the network
       before the task (`keras_incremental.objectives.SigmoidDistilled`).
    2. An image belongs to the class whose exemplars' mean feature is nearest:
       features of exemplars and of their mirror images are scaled to length 1,
       averaged, and scaled again. The means are computed anew after each task.

    Source: Rebuffi et al., CVPR 2017 (arXiv:1611.07725), Algorithms 1 to 5; the
    mirror images are those of the authors' code. Their head has all classes
    from the start, so that classes to come count as negatives; ours has those
    that are known.

    Args:
        decide: `"nearest_mean"`, or `"argmax"` of the sigmoids, which the paper
            calls hybrid1.
        total_classes: how many classes there will be, which the loss is divided
            by as in the authors' code; `None` divides by those that are known.
            Their learning rate of 2.0 goes with 100.
        learning_rate_factor: epoch -> factor on the compiled learning rate.

    Raises:
        ValueError: for another `decide`, or `total_classes` below 1.

    >>> ICaRL(decide="argmax").total_classes is None
    True
    """

    decide: str = "nearest_mean"
    total_classes: int | None = None
    learning_rate_factor: Callable[[int], float] = StepDecay()
    needs_memory = True

    def __post_init__(self):
        if self.decide not in _DECISIONS:
            raise ValueError(
                f"decide={self.decide!r}; expected one of {_DECISIONS}."
            )
        if self.total_classes is not None:
            check_count("total_classes", self.total_classes, 1)

    def check(self, model, memory):
        super().check(model, memory)
        if self.decide == "nearest_mean" and memory is None:
            raise ValueError(
                "ICaRL decides by the nearest mean of exemplars, and the "
                "callback has no memory. Pass IncrementalCallback("
                "ExemplarMemory(...), ...), or use LwFMC()."
            )

    def phases(self, task: TaskStep) -> list[Phase]:
        return [
            Phase(
                name="training",
                epochs=task.epochs,
                sources=lambda: [task.samples, *task.exemplars()],
                objective=SigmoidDistilled(
                    task.known_classes,
                    self.total_classes or task.model.num_classes,
                ),
                learning_rate_factor=self.learning_rate_factor,
            )
        ]

    def finish(self, task: TaskStep) -> None:
        if self.decide == "nearest_mean":
            task.model.score_rule = NearestMean(means_of_exemplars(task))


def means_of_exemplars(task: TaskStep) -> np.ndarray:
    """Returns the mean direction of each class's exemplars, `(classes, dim)`.

    Raises:
        ValueError: if a class has no exemplar.
    """
    model, memory = task.model, task.memory
    missing = memory.labels_without_exemplars(model.labels)
    if missing:
        raise ValueError(
            f"The memory has no exemplar of the classes {missing[:10]}, so "
            "they have no mean. Add some: memory.add_from(model, images, "
            "labels)."
        )
    means = []
    for label in model.labels:
        images = memory.images(label)
        both = np.concatenate([images, images[:, :, ::-1]])
        features = model.extract_features(both).astype(np.float64)
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        means.append((features / np.maximum(norms, 1e-12)).mean(axis=0))
    return np.stack(means)
