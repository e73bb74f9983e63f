"""How similar new classes are to those that a branch knows."""

import numpy as np
import tensorflow as tf

from keras_incremental.labels import distinct_in_order
from keras_incremental.models import batches_of, in_batches
from keras_incremental.networks import BranchedNetwork
from keras_incremental.samples import CachedColumn, Samples

_VOTES_PER_CLASS = 100
_BATCH = 128


def similarities(
    network: BranchedNetwork, samples: Samples | CachedColumn
) -> list[float]:
    """Returns how similar new classes are to the base and to each branch.

    Mean over the classes of `samples` of the share of the most frequent
    prediction among a branch's own classes, on at most 100 images a class.

    Args:
        network: with a base that knows classes.
        samples: images, or the trunk's outputs of images.

    Returns:
        a score in [0, 1] for the base, then for each branch; -1 for a branch
        of a single class, which cannot vote, if there is another.
    """
    labels = samples.labels
    rows = np.concatenate(
        [
            np.flatnonzero(labels == label)[:_VOTES_PER_CLASS]
            for label in distinct_in_order(labels)
        ]
    )
    inputs, is_cached = samples.take(rows), isinstance(samples, CachedColumn)
    parts = in_batches(
        lambda batch: network.part_logits(
            batch if is_cached else network.frozen(batch)
        ),
        map(tf.constant, batches_of(inputs, _BATCH)),
    )
    can_vote = [part.shape[1] > 1 for part in parts]
    return [
        _concentration(part.argmax(axis=1), labels[rows])
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
