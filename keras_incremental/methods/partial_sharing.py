"""Partial network sharing (Sarwar, Ankit and Roy, 2019)."""

import dataclasses
import logging
import numbers
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_incremental.labels import distinct_in_order
from keras_incremental.methods.calibration import fit_calibration
from keras_incremental.methods.method import (
    Method,
    Phase,
    Plan,
    Step,
    same,
)
from keras_incremental.methods.schedules import StepDecay
from keras_incremental.methods.trunk_outputs import keep_trunk_outputs
from keras_incremental.models import IncrementalClassifier
from keras_incremental.networks import thin
from keras_incremental.samples import ArraySamples, KeptSamples, Samples

_logger = logging.getLogger(__name__)
_VOTES_PER_CLASS = 100
_BATCH = 128


@dataclasses.dataclass(frozen=True)
class PartialSharing(Method):
    """Grows by branches: later layers cloned, earlier ones shared and frozen.

    First step: plain training of the whole network, the base. Every later
    step adds a branch: a clone of the layers after the model's branch point
    (`IncrementalClassifier(backbone, branch_at=...)`) and a classifier of its
    own, trained on the new data alone. What was there is never changed, so old
    branches give the same logits for ever; all logits together decide.

    1. **Clone source**: the base or the branch that is most similar to the
       new classes. Similarity is the mean over new classes of the share of
       the most frequent prediction, over at most 100 images a class, in
       [0, 1]; a low one warns that sharing deep will cost accuracy. Branches
       of a single class cannot vote, and are left out.
    2. **Training**, with momentum and learning rate started anew. The frozen
       trunk runs once: its outputs are kept, in host memory up to the
       callback's `cache_bytes` and in a temporary file beyond, and training
       touches the branch alone. With an on-line augmentation there is a choice,
       `copies`: 0 runs the trunk on every augmented batch, which costs its
       forward pass each time; `k` keeps the outputs of the images and of
       `k - 1` augmented copies of each, epoch `e` taking copy `e mod k`, which
       costs `k` forward passes in all and `k` times the room.
    3. **Calibration**, after the memory has taken in the new classes: one
       scale and one bias for each branch, by cross-entropy over all classes on
       the exemplars. Without a memory there is none.

    Source: Sarwar, Ankit and Roy, IEEE Access 8, 2020 (arXiv:1712.02719). The
    similarity, the initialisation of thin branches and the calibration are our
    definitions; the text at hand leaves them open.

    Args:
        width: channels of a branch as a fraction of those of its source, above
            0 to 1; channels with the largest norms are kept. A source that is
            thin already is cloned as it is.
        copies: variants of each image whose trunk outputs are kept, or 0; it
            matters only with an on-line augmentation.
        calibrate: `None` where there is a memory, `True` always, `False`
            never.
        learning_rate_factor: epoch -> factor on the compiled learning rate;
            the same default as `EEIL`.

    Raises:
        ValueError: for a value out of range.

    >>> PartialSharing(width=0.5).copies
    0
    """

    width: float = 1.0
    copies: int = 0
    calibrate: bool | None = None
    learning_rate_factor: Callable[[int], float] = StepDecay()
    needs_branch_point = True

    def __post_init__(self):
        if not _is_number(self.width, numbers.Real) or not 0 < self.width <= 1:
            raise ValueError(
                f"width={self.width!r}; expected a fraction of the channels, "
                "above 0 and at most 1."
            )
        if not _is_number(self.copies, numbers.Integral) or self.copies < 0:
            raise ValueError(
                f"copies={self.copies!r}; expected an integer >= 0."
            )

    def check(self, model, memory) -> None:
        if model.branches is None:
            raise ValueError(
                "PartialSharing needs a branch point. Build the model with "
                'one: IncrementalClassifier(backbone, branch_at="stage2"); '
                "keras_incremental.sharing.cut_points(backbone) lists them."
            )
        if self.calibrate and memory is None:
            raise ValueError(
                "PartialSharing(calibrate=True) needs exemplars of all classes "
                "and the callback has no memory. Pass "
                "IncrementalCallback(ExemplarMemory(...), ...), or leave "
                "calibrate out."
            )
        if self.width < 1:
            thin(model.tail, self.width)  # refuses a width too small

    def plan(self, step: Step) -> Plan:
        if not step.known_classes:
            return super().plan(step)
        _check_new_classes(step)
        return self._plan_branch(step)

    def phases(self, step: Step) -> list[Phase]:
        return [
            Phase(
                name="training of the base",
                epochs=step.epochs,
                sources=lambda: [step.samples],
                learning_rate_factor=self.learning_rate_factor,
            )
        ]

    def _plan_branch(self, step: Step) -> Plan:
        model = step.model
        kept = self._keep(step)
        scores = similarities(model, step.samples if kept is None else kept)
        source = int(np.argmax(scores))
        model.add_branch(
            step.new_labels,
            step.new_names,
            self._clone(model, source),
            seed=step.seed * 1009 + len(model.heads),
        )
        phase = Phase(
            name="training of a branch",
            epochs=step.epochs,
            sources=lambda: [step.samples if kept is None else kept],
            learning_rate_factor=self.learning_rate_factor,
            augmented=kept is None,
            as_input=same if kept is None else _as_trunk_outputs,
        )
        details = {"clone_source": source, "similarity": scores[source]}

        def features():
            return _in_batches(
                model.branches.newest.features, kept.images()
            ).astype(np.float32, copy=False)

        return Plan(
            [phase],
            features=None if kept is None else features,
            finish=lambda: {**details, "calibrated": self._calibrate(step)},
        )

    def _keep(self, step: Step) -> KeptSamples | None:
        """Returns the trunk's outputs, or `None` to run it in every batch."""
        augment, samples, copies = step.augment, step.samples, self.copies
        seed = (step.seed, len(step.model.heads))
        if augment is None:
            copies = 1
        elif augment.stored:
            raise ValueError(
                "PartialSharing got a stored augmentation. Pass the on-line "
                "one, and PartialSharing(copies=12) to keep the trunk's "
                "outputs of 12 variants of each image."
            )
        if not copies:
            return None
        return keep_trunk_outputs(
            step.model,
            samples,
            augment=augment,
            copies=copies,
            seed=seed,
            memory_bytes=step.cache_bytes,
            verbose=step.verbose,
        )

    def _clone(self, model: IncrementalClassifier, source: int):
        network = _networks(model)[source]
        is_thin = source > 0 and not _as_wide(network, model.tail)
        return thin(network, 1.0 if is_thin else self.width)

    def _calibrate(self, step: Step) -> bool:
        """Fits and sets scales and biases; returns whether it did."""
        model, memory = step.model, step.memory
        if memory is None or self.calibrate is False:
            return False
        missing = memory.lacking(model.labels)
        if missing:
            _logger.warning(
                "Calibration is left out: the memory has no exemplar of the "
                "classes %s.",
                missing[:10],
            )
            return False
        exemplars = memory.samples()
        logits = _in_batches(model.uncalibrated_logits, exemplars.images())
        units = model.classes.to_units(exemplars.labels)
        scales, biases = fit_calibration(logits, units, model.branch_of_unit())
        model.branches.calibrate(scales, biases)
        return True


def similarities(model: IncrementalClassifier, samples: Samples) -> list[float]:
    """Returns how similar new classes are to the base and to each branch.

    Mean over the classes of `samples` of the share of the most frequent
    prediction among a branch's own classes, on at most 100 images a class.

    Args:
        model: with a branch point.
        samples: images, or the trunk's outputs of images (`KeptSamples`).

    Returns:
        a score in [0, 1] for the base, then for each branch; -1 for a branch
        of a single class, which cannot vote, if there is another.
    """
    labels = distinct_in_order(samples.labels)
    rows = np.concatenate(
        [samples.of_label(label)[:_VOTES_PER_CLASS] for label in labels]
    )
    inputs = ArraySamples(samples.take(rows), samples.labels[rows])
    is_kept = isinstance(samples, KeptSamples)
    as_input = _as_trunk_outputs if is_kept else same
    batches = [
        [part.numpy() for part in model.part_logits(as_input(batch))]
        for batch in inputs.images().batch(_BATCH)
    ]
    parts = [np.concatenate(part) for part in zip(*batches, strict=True)]
    can_vote = [part.shape[1] > 1 for part in parts]
    return [
        _concentration(part.argmax(axis=1), inputs.labels)
        if votes or not any(can_vote)
        else -1.0
        for part, votes in zip(parts, can_vote, strict=True)
    ]


def _concentration(votes: np.ndarray, labels: np.ndarray) -> float:
    """Mean over labels of the share of the most frequent vote."""
    shares = [
        np.bincount(votes[labels == label]).max() / np.sum(labels == label)
        for label in distinct_in_order(labels)
    ]
    return float(np.mean(shares))


def _is_number(value, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _check_new_classes(step: Step) -> None:
    known = [
        label
        for label in distinct_in_order(step.samples.labels)
        if label not in set(step.new_labels)
    ]
    if known:
        raise ValueError(
            f"The new data holds the classes {known[:10]}, which the model "
            "knows already. PartialSharing never changes a branch that has "
            "been trained: pass images of new classes only, or use EEIL."
        )


def _networks(model: IncrementalClassifier) -> list:
    branches = [branch.network for branch in model.branches.branches]
    return [model.tail, *branches]


def _as_wide(network, other) -> bool:
    shapes = [tuple(weight.shape) for weight in network.weights]
    return shapes == [tuple(weight.shape) for weight in other.weights]


def _as_trunk_outputs(batch):
    return {"trunk_outputs": batch}


def _in_batches(function, rows: tf.data.Dataset) -> np.ndarray:
    """Returns `function` of all rows, in batches."""
    run = tf.function(function, reduce_retracing=True)
    return np.concatenate(
        [run(batch).numpy() for batch in rows.batch(_BATCH).prefetch(2)]
    )
