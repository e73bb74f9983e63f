"""One task, as a method sees it."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from keras_incremental.exemplars import ExemplarMemory, balanced_samples
from keras_incremental.labels import listed
from keras_incremental.models import (
    IncrementalClassifier,
    batches_of,
    in_batches,
)
from keras_incremental.networks import Network, traced
from keras_incremental.progress import told_if_long, with_progress
from keras_incremental.samples import (
    DEFAULT_CACHE_BYTES,
    CachedColumn,
    Samples,
    cache_column,
)

_BATCH = 128


@dataclasses.dataclass
class TaskStep:
    """One task of new data, while it is learned.

    Attributes:
        model: the classifier.
        memory: the exemplars, or `None`; those of before the task until its
            phases are over.
        samples: the new data.
        past: all data of earlier tasks, if the method keeps it.
        new_labels: the labels that the model did not know before the task.
        new_names: their names.
        known_classes: how many classes the model knew before the task.
        epochs: as passed to `fit`.
        batch_size: images per batch.
        augment: the callback's augmentation, or `None`.
        seed: the callback's.
        cache_bytes: host memory for data of the task.
        measure_statistics: whether the moving statistics of batch normalisation
            are measured at the end of each phase.
        verbose: 0 silent, else with progress bars.
        details: what is worth a note in the report; JSON types.
    """

    model: IncrementalClassifier
    memory: ExemplarMemory | None
    samples: Samples
    past: Sequence[Samples]
    new_labels: Sequence[int | str]
    new_names: Sequence[str]
    known_classes: int
    epochs: int
    batch_size: int
    augment: Callable | None = None
    seed: int = 0
    cache_bytes: int = DEFAULT_CACHE_BYTES
    measure_statistics: bool = True
    verbose: int = 0
    details: dict = dataclasses.field(default_factory=dict)
    _cached: list = dataclasses.field(default_factory=list)

    def __repr__(self):
        return (
            f"<TaskStep: {len(self.samples)} images, new classes "
            f"{listed(self.new_names)}; {self.model}; {self.memory}>"
        )

    def exemplars(self) -> list[Samples]:
        """Returns the stored exemplars as a source to mix in, if any."""
        return [self.memory.samples()] if self.memory else []

    def balanced(self) -> Samples:
        """Returns the same number of images for each class, old and new."""
        with told_if_long("ranking images", self.verbose):
            return balanced_samples(
                self.memory, self.samples, self.model.extract_features
            )

    def images_per_class(self, sources: Iterable[Samples]) -> np.ndarray:
        """Returns how many images of each class there are, by unit.

        Args:
            sources: images with labels that the model knows.

        Returns:
            `(num_classes,)` int64.
        """
        units = [
            self.model.classes.to_units(source.labels) for source in sources
        ]
        return np.bincount(
            np.concatenate(units), minlength=self.model.num_classes
        )

    def features(self, samples: Samples) -> np.ndarray:
        """Returns the network's features of samples, `(samples, dim)` float32.

        Outputs of the frozen part that have been cached are not computed again.
        """
        network, function = self.model.network, self.model.extract_features
        column = self._find(samples, network)
        if column is not None:
            function = traced(network.features)
        take = (samples if column is None else column).take
        batches = with_progress(
            map(take, batches_of(np.arange(len(samples)), _BATCH)),
            math.ceil(len(samples) / _BATCH),
            "computing features",
            verbose=self.verbose,
        )
        return in_batches(function, batches).astype(np.float32)

    def logits_and_scores(self, samples: Samples, indices: np.ndarray) -> tuple:
        """Returns logits and scores `(len(indices), num_classes)` of images.

        Outputs of the frozen part that have been cached are not computed again.
        It runs without a graph: for a few images.
        """
        network = self.model.network
        column = self._find(samples, network)
        if column is None:
            frozen = network.frozen(tf.constant(samples.take(indices)))
        else:
            frozen = column.take(indices)
        logits, features = network.outputs(frozen)
        return logits, self.model.score_rule(features, logits)

    def cached(
        self,
        samples: Samples,
        copies: int = 1,
        network: Network | None = None,
    ) -> CachedColumn:
        """Returns the outputs of a network's frozen part, computed once.

        Args:
            samples: images.
            copies: variants of each image; all but the first are augmented.
            network: by default the model's.

        Raises:
            ValueError: for several copies by a stored augmentation.
        """
        if copies > 1 and self.augment.stored:
            raise ValueError(
                f"A phase caches copies={copies} variants of each image, and "
                "the augmentation is a stored one. Pass the on-line one."
            )
        network = network or self.model.network
        found = self._find(samples, network, copies)
        if found is not None:
            return found
        column = cache_column(
            "frozen",
            network.frozen,
            samples,
            augment=self.augment,
            copies=copies,
            seed=(self.seed, len(self.model.heads)),
            memory_bytes=self.cache_bytes,
            verbose=self.verbose,
        )
        self._cached.append((samples, network, column))
        return column

    def _find(self, samples, network, copies=None) -> CachedColumn | None:
        """Returns a column cached for these samples by this network."""
        for others, other, column in self._cached:
            is_same = others is samples and other is network
            if is_same and copies in (None, column.copies):
                return column
        return None
