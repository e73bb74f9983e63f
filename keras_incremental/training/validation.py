"""Accuracy on the validation data of a fit, before a task and after it."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.labels import check_labels, whole_labels
from keras_incremental.models import FitRequest, IncrementalClassifier
from keras_incremental.progress import with_progress

_BATCH = 256


@dataclasses.dataclass(frozen=True)
class ClassCounts:
    """Images and hits by label.

    Attributes:
        images: of each label in the data.
        hits: images classified rightly, for labels that the model knows.
    """

    images: dict
    hits: dict

    def accuracy(self) -> dict:
        """Returns the accuracy of each label that the model knows."""
        return {k: hits / self.images[k] for k, hits in self.hits.items()}


class ValidationData:
    """What a user passes to `fit` as validation data, to be read repeatedly.

    Args:
        request: What the user passed to `fit`.

    Attributes:
        is_there: whether there is data that can be read more than once.
        before: what `count_hits` returned before the task.
    """

    def __init__(self, request: FitRequest):
        self._data = request.options.get("validation_data")
        self._steps = request.options.get("validation_steps")
        self._verbose = int(request.verbose != 0)
        self.before = ClassCounts({}, {})
        self.is_there = isinstance(
            self._data, (tuple, list, tf.data.Dataset, keras.utils.PyDataset)
        )

    def count_hits(self, model: IncrementalClassifier) -> ClassCounts:
        """Returns images and hits by label, all known classes competing."""
        images, hits = collections.Counter(), collections.Counter()
        for batch_images, labels in self._batches():
            images.update(labels.tolist())
            known = np.isin(labels, model.labels) if model.num_classes else []
            if not np.any(known):
                continue
            _, scores = model.logits_and_scores(batch_images[known], _BATCH)
            units = model.classes.to_units(labels[known])
            is_hit = scores.argmax(axis=-1) == units
            hits.update(dict.fromkeys(labels[known].tolist(), 0))
            hits.update(labels[known][is_hit].tolist())
        return ClassCounts(dict(images), dict(hits))

    def _batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields images and labels; nothing if there is no data."""
        if not self.is_there:
            return
        batches = with_progress(
            self._raw_batches(),
            None,
            "measuring accuracy by class",
            verbose=self._verbose,
        )
        for images, labels, *_ in batches:
            labels = check_labels(whole_labels(labels), "validation labels")
            yield np.asarray(images), labels

    def _raw_batches(self) -> Iterable:
        data = self._data
        if isinstance(data, (tuple, list)):
            firsts = range(0, len(data[0]), _BATCH)
            return [
                tuple(part[first : first + _BATCH] for part in data)
                for first in firsts
            ]
        if isinstance(data, tf.data.Dataset):
            return data if self._steps is None else data.take(self._steps)
        steps = self._steps or data.num_batches
        return (data[index] for index in range(steps))


def check_coverage(
    counts: ClassCounts, known: Iterable, new: Iterable, is_judged: bool
) -> None:
    """Refuses validation data that cannot tell what it is to tell.

    Args:
        counts: Of the data.
        known: the labels that the model knows.
        new: those that it is about to learn.
        is_judged: whether a gate decides by it.

    Raises:
        ValueError: for labels that are neither known nor new; where a gate
            decides, if a new class or all known ones have no image.
    """
    known, new = list(known), list(new)
    strangers = [k for k in counts.images if k not in {*known, *new}]
    if strangers:
        raise ValueError(
            f"validation_data has the labels {sorted(strangers)[:10]}, which "
            "the model neither knows nor learns in this fit; it knows "
            f"{known[:10]} and learns {new[:10]}. Leave their images out."
        )
    if not is_judged:
        return
    missing = [k for k in new if k not in counts.images]
    has_known = any(k in counts.images for k in known)
    if missing or (known and not has_known):
        lack = f"the new classes {missing[:10]}" if missing else "old classes"
        raise ValueError(
            f"publish_if judges a model by fit's validation_data, which has no "
            f"image of {lack}. Pass fit(..., validation_data=(images, labels)) "
            "with images of old and new classes."
        )
