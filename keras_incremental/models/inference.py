"""Features, logits and scores of many images, by functions traced once."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf


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

        self.features = tf.function(features, reduce_retracing=True)
        self.outputs = tf.function(outputs, reduce_retracing=True)


def in_batches(function: Callable, images, batch_size: int):
    """Returns what a function makes of images, or `None` of no image.

    Args:
        function: from a batch to a tensor or a tuple of tensors, batch first.
        images: an array `(samples, ...)`, or a dataset of single images.
        batch_size: images per call.

    Returns:
        an array or a tuple of arrays, `(samples, ...)`.
    """
    if isinstance(images, tf.data.Dataset):
        batches = images.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    else:
        images = np.asarray(images)
        batches = (
            tf.constant(images[first : first + batch_size])
            for first in range(0, len(images), batch_size)
        )
    parts = [
        tf.nest.map_structure(lambda part: part.numpy(), function(batch))
        for batch in batches
    ]
    if not parts:
        return None
    return tf.nest.map_structure(lambda *rows: np.concatenate(rows), *parts)
