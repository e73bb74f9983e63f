"""Ranking the images of each class, and storing those that are chosen."""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from keras_incremental.exemplars.class_exemplars import ClassExemplars
from keras_incremental.exemplars.selection import check_features
from keras_incremental.exemplars.storages import Storage
from keras_incremental.labels import distinct_in_order
from keras_incremental.samples import Samples

_ENCODED_AT_ONCE = 64
Selection = Callable[[np.ndarray, int, object], np.ndarray]
Extract = Callable[[tf.data.Dataset], np.ndarray]


def rank_classes(
    memory,
    samples: Samples,
    extract: Extract,
    counts: Mapping[int | str, int],
    features: np.ndarray | None = None,
) -> dict[int | str, ClassExemplars]:
    """Chooses images of the classes in `samples`; the memory stays as it is.

    Args:
        memory: An `ExemplarMemory`. Its exemplars of the same classes compete.
        samples: New data.
        extract: Maps a dataset of single images to `(samples, dim)` features.
        counts: How many images to choose, by label.
        features: `(samples, dim)` of `samples`, if they are known.

    Returns:
        The chosen images of each label, best first.

    Raises:
        ValueError: If features do not fit the images or are not finite.
    """
    features = _checked(samples, features, extract)
    exemplars, arriving = memory.stored(), distinct_in_order(samples.labels)
    known = list(dict.fromkeys([*exemplars, *arriving]))
    orders, indices = [], []
    for label in arriving:
        index, old = samples.of_label(label), exemplars.get(label, ())
        candidates = features[index]
        if len(old):
            images = old.samples().images()
            candidates = np.concatenate([extract(images), candidates])
        count = min(counts[label], len(candidates))
        order = memory.selection(
            candidates, count, (memory.seed, known.index(label))
        )
        orders.append(np.asarray(order, int))
        indices.append(index[orders[-1][orders[-1] >= len(old)] - len(old)])
    rows = _encoded(samples, np.concatenate(indices), memory.storage)
    parts = np.split(rows, np.cumsum([*map(len, indices)])[:-1])
    spec = samples.image_spec
    return {
        label: ClassExemplars(
            memory.storage, spec, _merged(exemplars.get(label, ()), part, order)
        )
        for label, part, order in zip(arriving, parts, orders, strict=True)
    }


def _merged(old, new: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Returns rows in an order in which old ones come before new ones.

    Args:
        old: `ClassExemplars`, or nothing.
        new: The rows of the new images in the order, as they come in it.
        order: Positions among the old images, followed by the new ones.
    """
    rows = np.concatenate([old.rows, new]) if len(old) else new
    is_new = order >= len(old)
    return rows[np.where(is_new, len(old) + np.cumsum(is_new) - 1, order)]


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


def _encoded(samples, indices, storage: Storage) -> np.ndarray:
    """Returns the rows that store the images at `indices`."""
    rows = [storage.encode(samples.take(indices[:0]))]
    for first in range(0, len(indices), _ENCODED_AT_ONCE):
        part = indices[first : first + _ENCODED_AT_ONCE]
        rows.append(storage.encode(samples.take(part)))
    return np.concatenate(rows)
