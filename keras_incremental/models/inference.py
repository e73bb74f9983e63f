"""Features, logits and scores of many images, by functions traced once."""

from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from keras_incremental.networks import traced


class Inference:
    """The functions of a model in inference mode; a plain object.

    Args:
        model: with a `network` and a `score_rule`.

    Attributes:
        features: from a batch of images to features, float32.
        outputs: from a batch of images to logits and scores, float32.
    """

    def __init__(self, model):
        def features(images):
            frozen = model.network.frozen(images)
            return tf.cast(model.network.features(frozen), tf.float32)

        def outputs(images):
            logits, features = model.network.outputs(
                model.network.frozen(images)
            )
            scores = model.score_rule(features, logits)
            return tf.cast(logits, tf.float32), tf.cast(scores, tf.float32)

        self.features = traced(features)
        self.outputs = traced(outputs)


def in_batches(function: Callable, batches: Iterable):
    """Returns what a function makes of batches, or `None` of no batch.

    Args:
        function: from a batch to a structure of tensors, batch first.
        batches: of images, or of structures of rows.

    Returns:
        a structure of arrays, `(samples, ...)`.
    """
    parts = [
        tf.nest.map_structure(np.asarray, function(batch)) for batch in batches
    ]
    if not parts:
        return None
    return tf.nest.map_structure(lambda *rows: np.concatenate(rows), *parts)


def batches_of(images, batch_size: int) -> tf.data.Dataset | list:
    """Returns batches of an array, or of a dataset of single images."""
    if isinstance(images, tf.data.Dataset):
        return images.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    images = np.asarray(images)
    return [
        images[first : first + batch_size]
        for first in range(0, len(images), batch_size)
    ]
