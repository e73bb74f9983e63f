"""Partial network sharing (Sarwar, Ankit and Roy, 2019)."""

import dataclasses
import logging
import numbers
from collections.abc import Callable

import keras
import numpy as np

from keras_incremental.graphs import check_cloneable, clone_network
from keras_incremental.methods.calibration import fit_calibration
from keras_incremental.methods.method import Method, check_count
from keras_incremental.methods.phase import Phase
from keras_incremental.methods.schedules import StepDecay
from keras_incremental.methods.similarity import similarities
from keras_incremental.methods.task_step import TaskStep
from keras_incremental.methods.warm_start import warm_start
from keras_incremental.networks import BranchedNetwork
from keras_incremental.score_rules import AffinePerHead

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PartialSharing(Method):
    """Grows by branches: later layers cloned, earlier ones shared and frozen.

    First task: plain training of the whole network, the base. Every later
    task adds a branch: a clone of the layers after the model's branch point
    (`IncrementalClassifier(backbone, branch_at=...)`) and a classifier of its
    own, trained on the new data alone. What was there is never changed, so old
    branches give the same logits for ever; all logits together decide.

    1. **Clone source**: the base or the branch that is most similar to the
       new classes. Similarity is the mean over new classes of the share of
       the most frequent prediction, over at most 100 images a class, in
       [0, 1]; a low one warns that sharing deep will cost accuracy. Branches
       of a single class cannot vote, and are left out.
    2. **Training**, with momentum and learning rate started anew. The frozen
       trunk runs once: its outputs are cached, in host memory up to the
       callback's `cache_bytes` and in a temporary file beyond, and training
       touches the branch alone. With an on-line augmentation there is a choice,
       `copies`: 0 runs the trunk on every augmented batch, which costs its
       forward pass each time; `k` caches the outputs of the images and of
       `k - 1` augmented copies of each, epoch `e` taking copy `e mod k`, which
       costs `k` forward passes in all and `k` times the room.
    3. **Calibration**, after the memory has taken in the new classes: one
       scale and one bias for each branch, by cross-entropy over all classes on
       the exemplars. Without a memory there is none, but for
       `standardize=True`: then mean and deviation of a branch's logits, on the
       data that it has been trained on, are brought to 0 and 1, which takes no
       old image.

    Source: Sarwar, Ankit and Roy, IEEE Access 8, 2020 (arXiv:1712.02719). The
    similarity, the initialisation of thin branches and the calibration are our
    definitions; the text at hand leaves them open.

    Args:
        width: channels of a branch as a fraction of those of its source, above
            0 to 1; channels with the largest norms are kept. A source that is
            thin already is cloned as it is.
        copies: variants of each image whose trunk outputs are cached, or 0; it
            matters only with an on-line augmentation.
        calibrate: whether there is a calibration, where there is a memory.
        standardize: whether the calibration is by mean and deviation, not by
            exemplars. The base has to be trained with it as well.
        warm_start: whether a new head starts from a closed form of the features
            instead of at random.
        learning_rate_factor: epoch -> factor on the compiled learning rate;
            the same default as `EEIL`.

    Raises:
        ValueError: for a value out of range.

    >>> PartialSharing(width=0.5).copies
    0
    """

    width: float = 1.0
    copies: int = 0
    calibrate: bool = True
    standardize: bool = False
    warm_start: bool = False
    learning_rate_factor: Callable[[int], float] = StepDecay()
    needs_branch_point = True

    def __post_init__(self):
        if not isinstance(self.width, numbers.Real) or not 0 < self.width <= 1:
            raise ValueError(
                f"width={self.width!r}; expected a fraction of the channels, "
                "above 0 and at most 1."
            )
        check_count("copies", self.copies, 0)

    def check(self, model, memory):
        network = BranchedNetwork.on(model.network)
        check_cloneable(network.tail)
        if self.width < 1:
            # Refuses a network that has no layer to thin.
            clone_network(network.tail, self.width)

    def grow(self, task: TaskStep) -> None:
        if task.known_classes:
            self._add_branch(task)
        else:
            super().grow(task)
        if self.warm_start:
            warm_start(task)

    def _add_branch(self, task: TaskStep) -> None:
        model = task.model
        known = set(task.samples.labels.tolist()) - set(task.new_labels)
        if known:
            raise ValueError(
                f"The new data holds the classes {sorted(known)[:10]}, which "
                "the model knows already. PartialSharing never changes a "
                "branch that has been trained: pass images of new classes "
                "only, or use EEIL."
            )
        network = BranchedNetwork.on(model.network)
        source = self._clone_source(network, task)
        model.network = network.with_branch(self._clone(network, source))
        model.add_classes(
            task.new_labels,
            task.new_names,
            seed=task.seed * 1009 + len(model.heads),
        )

    def phases(self, task: TaskStep) -> list[Phase]:
        part = "a branch" if task.known_classes else "the base"
        return [
            Phase(
                name=f"training of {part}",
                epochs=task.epochs,
                sources=lambda: [task.samples],
                learning_rate_factor=self.learning_rate_factor,
                copies=self.copies,
            )
        ]

    def finish(self, task: TaskStep) -> None:
        calibrate = _standardize if self.standardize else self._calibrate
        if task.known_classes or self.standardize:
            task.details["calibrated"] = calibrate(task)

    def _clone_source(self, network: BranchedNetwork, task: TaskStep) -> int:
        """Returns the most similar part: 0 for the base, 1 for branch 1, ..."""
        copies = 1 if task.augment is None else self.copies
        samples = task.samples
        if copies:
            samples = task.cached(samples, copies, network)
        scores = similarities(network, samples)
        source = int(np.argmax(scores))
        task.details.update(clone_source=source, similarity=scores[source])
        return source

    def _clone(self, network: BranchedNetwork, source: int):
        chosen = network.networks[source]
        is_thin = chosen.count_params() < network.tail.count_params()
        return clone_network(chosen, 1.0 if is_thin else self.width)

    def _calibrate(self, task: TaskStep) -> bool:
        """Sets scales and biases; returns whether it did."""
        model, memory = task.model, task.memory
        if memory is None or not self.calibrate:
            return False
        missing = memory.labels_without_exemplars(model.labels)
        if missing:
            _logger.warning(
                "Calibration is left out: the memory has no exemplar of the "
                "classes %s.",
                missing[:10],
            )
            return False
        exemplars = memory.samples()
        logits, _ = model.logits_and_scores(exemplars.images())
        units = model.classes.to_units(exemplars.labels)
        sizes = model.network.part_sizes
        parts = np.repeat(np.arange(len(sizes)), sizes)
        scales, biases = fit_calibration(logits, units, parts)
        model.score_rule = AffinePerHead(sizes, scales, biases)
        return True


def _standardize(task: TaskStep) -> bool:
    """Sets scale and bias of the newest part; returns whether it did."""
    model = task.model
    kernel, bias = model.network.head_weights(-1)
    logits = task.features(task.samples) @ kernel + bias
    sizes = [head.stop - head.start for head in model.heads]
    rule = model.score_rule if task.known_classes else AffinePerHead(sizes)
    if not isinstance(rule, AffinePerHead) or rule.head_sizes != sizes:
        _logger.warning(
            "Calibration is left out: the base was not trained by "
            "PartialSharing(standardize=True), so that mean and deviation of "
            "its logits are not known."
        )
        return False
    scale = 1 / logits.std()
    old = map(keras.ops.convert_to_numpy, (rule.scales, rule.biases))
    scales, biases = (values[:-1] for values in old)
    model.score_rule = AffinePerHead(
        sizes, [*scales, scale], [*biases, -scale * logits.mean()]
    )
    return True
