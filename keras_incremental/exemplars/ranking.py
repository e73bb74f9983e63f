"""Ranking the images of each class, and storing those that are chosen."""

import collections
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from keras_incremental.exemplars.class_exemplars import ClassExemplars
from keras_incremental.exemplars.codecs import Storage
from keras_incremental.exemplars.selection import check_features
from keras_incremental.labels import distinct_in_order
from keras_incremental.samples import Samples

Selection = Callable[[np.ndarray, int, object], np.ndarray]
Extract = Callable[[tf.data.Dataset], np.ndarray]


def rank_classes(
    samples: Samples,
    counts: Mapping[int | str, int],
    exemplars: Mapping[int | str, ClassExemplars],
    *,
    features: np.ndarray | None,
    extract: Extract,
    selection: Selection,
    seed: int,
    storage: Storage,
) -> dict[int | str, ClassExemplars]:
    """Chooses images of each class in `samples`, as `ExemplarMemory.rank`.

    Args:
        samples: New data.
        counts: How many images to choose, by label.
        exemplars: Those in the memory by label, in order of arrival.
        features: `(samples, dim)` of `samples`, if they are known.
        extract: Maps a dataset of single images to `(samples, dim)` features.
        selection: Function `(features, count, seed) -> indices`, best first.
        seed: Passed to `selection`, with the position of the class.
        storage: How the chosen images are stored.
    """
    features = _checked(samples, features, extract)
    arriving = distinct_in_order(samples.labels)
    known = list(dict.fromkeys([*exemplars, *arriving]))
    picks, indices = {}, []
    for label in arriving:
        index, old = samples.of_label(label), exemplars.get(label, ())
        candidates = features[index]
        if len(old):
            candidates = np.concatenate([extract(old.dataset()), candidates])
        count = min(counts[label], len(candidates))
        order = selection(candidates, count, (seed, known.index(label)))
        # Below 0: exemplars, counted from their end. 0 and up: new images.
        picks[label] = np.asarray(order, int) - len(old)
        indices.append(index[picks[label][picks[label] >= 0]])
    new = _encoded(samples, np.concatenate(indices), storage)
    spec = definite_spec(samples)
    return {
        label: ClassExemplars.of_rows(
            storage,
            spec,
            [
                new.popleft() if pick >= 0 else exemplars[label].rows[pick]
                for pick in picks[label]
            ],
        )
        for label in arriving
    }


def definite_spec(samples: Samples) -> tf.TensorSpec:
    """Returns shape and dtype of the images, also where a dataset has none."""
    spec = samples.image_spec
    if spec.shape.is_fully_defined():
        return spec
    return tf.TensorSpec(samples.take([0]).shape[1:], spec.dtype)


def _checked(samples, features, extract) -> np.ndarray:
    if features is None:
        features = extract(samples.images())
    features = check_features(features)
    if len(features) != len(samples):
        raise ValueError(
            f"{len(features)} rows of features for {len(samples)} images; "
            "expected one for each image, in their order."
        )
    return features


def _encoded(samples, indices, storage) -> collections.deque:
    """Returns the rows that store the images at `indices`, read in one pass."""
    rows = [None] * len(indices)
    for positions, images in samples.parts(indices):
        encoded = storage.encode(images)
        for position, row in zip(positions, encoded, strict=True):
            rows[position] = row
    return collections.deque(rows)
