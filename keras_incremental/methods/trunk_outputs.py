"""The outputs of a frozen trunk, computed once and kept."""

import math
import shutil
import tempfile

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.models import IncrementalClassifier
from keras_incremental.samples import KeptSamples, Samples

_BATCH = 128


def keep_trunk_outputs(
    model: IncrementalClassifier,
    samples: Samples,
    *,
    augment=None,
    copies: int = 1,
    seed=(0, 0),
    memory_bytes: int,
    verbose: int = 0,
) -> KeptSamples:
    """Runs a model's trunk over samples, and over augmented copies of them.

    The first copy is of the images as they are, the others of images
    augmented by draws of their own.

    Args:
        model: with a branch point.
        samples: raw images.
        augment: an object of `keras_incremental.augmentation`, if `copies` is
            above 1.
        copies: variants of each image.
        seed: int64 `(2,)` for the augmentation.
        memory_bytes: outputs that take more than this are kept in a file of
            the temporary folder, which is deleted when they are not used any
            more.
        verbose: 0 silent, else a progress bar.

    Raises:
        ValueError: if the disk has no room for the outputs.
    """
    probe = model.trunk_outputs(_zeros(samples.image_spec))
    shape = (copies, len(samples), *probe.shape[1:])
    rows, owner = _allocate(shape, probe.dtype, memory_bytes)
    batches = samples.images().batch(_BATCH).prefetch(2)
    progress = keras.utils.Progbar(
        math.ceil(len(samples) / _BATCH),
        verbose=verbose,
        unit_name="trunk batch",
    )
    first = 0
    for index, images in enumerate(batches):
        last = first + len(images)
        rows[0, first:last] = model.trunk_outputs(images).numpy()
        for copy in range(1, copies):
            drawn = tf.random.experimental.stateless_fold_in(
                tf.constant(seed, tf.int64), copy * (len(samples) + 1) + index
            )
            augmented = augment(images, drawn)
            rows[copy, first:last] = model.trunk_outputs(augmented).numpy()
        first = last
        progress.add(1)
    return KeptSamples(rows, samples.labels, owner)


def _zeros(image_spec: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros([1, *image_spec.shape], image_spec.dtype)


def _allocate(shape, dtype: tf.DType, memory_bytes: int):
    """Returns an empty array, and the folder that holds it, if any."""
    size = math.prod(shape) * dtype.size
    if size <= memory_bytes:
        return np.empty(shape, dtype.as_numpy_dtype), None
    folder = tempfile.TemporaryDirectory(prefix="trunk_outputs_")
    free = shutil.disk_usage(folder.name).free
    if size > free:
        raise ValueError(
            f"The trunk's outputs take {size} bytes: more than cache_bytes="
            f"{memory_bytes}, and than the {free} bytes free in "
            f"{folder.name}. Use fewer copies, a deeper branch point whose "
            "outputs are smaller, or an augmentation with copies=0, which "
            "keeps nothing."
        )
    path = f"{folder.name}/rows"
    return np.memmap(path, dtype.as_numpy_dtype, "w+", shape=shape), folder
