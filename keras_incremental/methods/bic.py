"""Bias correction, BiC (Wu et al., CVPR 2019)."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_incremental.methods.calibration import fit_affine
from keras_incremental.methods.method import Method, check_share
from keras_incremental.methods.phase import ClosedFormPhase, Phase
from keras_incremental.methods.schedules import StepDecay
from keras_incremental.methods.task_step import TaskStep
from keras_incremental.models import IncrementalClassifier
from keras_incremental.objectives import Corrected, WeightedDistillation
from keras_incremental.samples import ChosenSamples, Samples
from keras_incremental.score_rules import AffinePerHead


@dataclasses.dataclass(frozen=True)
class BiC(Method):
    """Trains with distillation, then corrects the new classes' logits.

    1. A tenth of the exemplars, and as many new images of each class, are held
       out. On the rest `(1 - l) CE + l KD`
       (`keras_incremental.objectives.WeightedDistillation`), with the
       corrections of earlier tasks in place.
    2. `a z + b` in place of the new classes' logits `z`: one scale and one bias
       for all of them, by cross-entropy over all classes on the images that
       were held out. It becomes part of the score rule.

    Source: Wu et al., CVPR 2019 (arXiv:1905.13260), Eqs. 1 to 5.

    Args:
        temperature: T of the distillation.
        held_out: share of the exemplars that are held out, above 0, below 1.
        learning_rate_factor: epoch -> factor on the compiled learning rate.

    Raises:
        ValueError: if the share is not between 0 and 1.

    >>> BiC().held_out
    0.1
    """

    temperature: float = 2.0
    held_out: float = 0.1
    learning_rate_factor: Callable[[int], float] = StepDecay()
    needs_memory = True

    def __post_init__(self):
        check_share("held_out", self.held_out)

    def phases(self, task: TaskStep) -> list[Phase | ClosedFormPhase]:
        old, model = task.known_classes, task.model
        sources = [task.samples, *task.exemplars()]
        corrects = bool(old and task.new_labels and task.memory)
        parts = self._split(task, sources) if corrects else [sources, []]
        scales, biases = corrections(model)
        training = Phase(
            name="training",
            epochs=task.epochs,
            sources=lambda: parts[0],
            objective=Corrected(
                WeightedDistillation(
                    old, old / model.num_classes, self.temperature
                ),
                scales,
                biases,
            ),
            learning_rate_factor=self.learning_rate_factor,
        )
        if not corrects:
            return [training]
        return [
            training,
            ClosedFormPhase("bias correction", lambda: correct(task, parts[1])),
        ]

    def _split(self, task: TaskStep, sources: list[Samples]) -> list[list]:
        """Returns the sources to train on, and those that are held out."""
        counts = task.images_per_class(sources[1:])
        smallest = counts[counts > 0].min()
        count = max(round(self.held_out * smallest), 1)
        random = np.random.default_rng([task.seed, task.known_classes])
        kept, out = [], []
        for source in sources:
            chosen = np.concatenate(
                [
                    random.permutation(source.of_label(label))[:count]
                    for label in np.unique(source.labels)
                ]
            )
            rest = np.setdiff1d(np.arange(len(source)), chosen)
            kept.append(ChosenSamples(source, rest))
            out.append(ChosenSamples(source, chosen))
        return [kept, out]


def corrections(model: IncrementalClassifier) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scale and the bias of each class, `(classes,)` float32."""
    rule, sizes = model.score_rule, [h.stop - h.start for h in model.heads]
    if not isinstance(rule, AffinePerHead):
        rule = AffinePerHead(sizes)
    return tuple(
        np.repeat(np.asarray(values), rule.head_sizes)
        for values in (rule.scales, rule.biases)
    )


def correct(task: TaskStep, held_out: list[Samples]) -> None:
    """Fits the newest head's scale and bias, and sets the score rule."""
    model = task.model
    sizes = [head.stop - head.start for head in model.heads]
    images = [source.take(range(len(source))) for source in held_out]
    logits = model.logits_and_scores(np.concatenate(images))[0]
    scales, biases = corrections(model)
    labels = np.concatenate([source.labels for source in held_out])
    scale, bias = fit_correction(
        logits * scales + biases,
        model.classes.to_units(labels),
        model.heads[-1].start,
    )
    older = [head.start for head in model.heads[:-1]]
    model.score_rule = AffinePerHead(
        sizes, [*scales[older], scale], [*biases[older], bias]
    )
    task.details.update(correction_scale=scale, correction_bias=bias)


def fit_correction(
    logits: np.ndarray, units: np.ndarray, first_new: int
) -> tuple[float, float]:
    """Fits `a z + b` on the logits of new classes by cross-entropy.

    `((a - 1)^2 + b^2) / 2` counts as much as one image's cross-entropy. The
    paper has no such term; without it, a few images that are told apart by
    any `a` and `b` large enough would drive both to infinity.

    Args:
        logits: `(samples, units)`.
        units: `(samples,)` int, their classes.
        first_new: the first unit of the new classes.

    Returns:
        `(a, b)`, with `a` above 0.

    >>> logits = np.array([[1.0, 9.0], [0.0, 8.0], [1.0, 4.0], [0.0, 3.0]])
    >>> many = np.tile(logits, (50, 1)), np.tile([1, 1, 0, 0], 50)
    >>> a, b = fit_correction(*many, first_new=1)
    >>> (logits * [1, a] + [0, b]).argmax(axis=1).tolist()
    [1, 1, 0, 0]
    """
    is_new = np.arange(logits.shape[1]) >= first_new
    weights = np.full(len(units), 1 / len(units))
    scales, biases = fit_affine(
        logits, units, is_new[:, None], weights, ridge=0.5 / len(units)
    )
    return scales.item(), biases.item()
