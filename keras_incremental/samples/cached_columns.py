"""What is computed once for each sample, and looked up from then on."""

import math
import os
import shutil
import tempfile
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.progress import with_progress
from keras_incremental.samples.samples import LookUp, Samples, call_in_graph
from keras_incremental.samples.temporary_files import temporary_file

_BATCH = 128


class CachedColumn:
    """A column of samples, computed once, in one or several variants.

    Epoch `e` of training sees variant `e mod copies` of every sample. Rows are
    freed with this object: it must outlive the datasets that it gives.

    Args:
        name: Name of the column.
        rows: an array `(copies, samples, ...)`, or a tuple of such, in host
            memory or mapped from a file.
        labels: `(samples,)`, already checked.
    """

    def __init__(self, name: str, rows, labels: np.ndarray):
        self.name, self.rows, self.labels = name, rows, labels
        self.copies = len(keras.tree.flatten(rows)[0])

    def __len__(self):
        return len(self.labels)

    def take(self, indices):
        """Returns the first variant's rows at `indices`, batch first."""
        indices = np.asarray(indices, int)
        return keras.tree.map_structure(
            lambda rows: rows[0, indices], self.rows
        )

    def look_up(self) -> LookUp:
        """Returns a function `(epoch, indices) -> {name: rows}`, for graphs."""
        specs = [
            tf.TensorSpec(part.shape[2:], part.dtype)
            for part in keras.tree.flatten(self.rows)
        ]

        def look_up(epoch, indices):
            copy = epoch % self.copies
            rows = call_in_graph(self._rows_at, [copy, indices], specs)
            return {self.name: keras.tree.pack_sequence_as(self.rows, rows)}

        return look_up

    def _rows_at(self, copy, indices) -> list[np.ndarray]:
        return [part[copy, indices] for part in keras.tree.flatten(self.rows)]


def cache_column(
    name: str,
    function: Callable,
    samples: Samples,
    *,
    augment=None,
    copies: int = 1,
    seed=(0, 0),
    memory_bytes: int,
    verbose: int = 0,
) -> CachedColumn:
    """Runs a function over samples, and over augmented copies of them.

    The first copy is of the images as they are, the others of images
    augmented by draws of their own.

    Args:
        name: Name of the column.
        function: from a batch of images to a tensor or a tuple of tensors,
            batch first.
        samples: raw images.
        augment: an object of `keras_incremental.augmentation`, if `copies` is
            above 1.
        copies: variants of each image.
        seed: int64 `(2,)` for the augmentation.
        memory_bytes: rows that take more than this are mapped from files of the
            temporary folder, which go with them.
        verbose: 0 silent, else a progress bar.

    Raises:
        ValueError: if the disk has no room for the rows.
    """
    spec = samples.image_spec
    probe = function(tf.zeros([1, *spec.shape], spec.dtype))
    rows = _allocate(probe, copies, len(samples), memory_bytes)
    batches = with_progress(
        samples.images().batch(_BATCH).prefetch(2),
        None,
        "caching outputs of frozen layers",
        verbose=verbose,
    )
    first = 0
    for index, images in enumerate(batches):
        last = first + len(images)
        _write(rows, 0, first, last, function(images))
        for copy in range(1, copies):
            drawn = tf.random.experimental.stateless_fold_in(
                tf.constant(seed, tf.int64), copy * (len(samples) + 1) + index
            )
            _write(rows, copy, first, last, function(augment(images, drawn)))
        first = last
    return CachedColumn(name, rows, samples.labels)


def _write(rows, copy: int, first: int, last: int, values) -> None:
    parts = zip(
        keras.tree.flatten(rows), keras.tree.flatten(values), strict=True
    )
    for part, value in parts:
        part[copy, first:last] = value.numpy()


def _allocate(probe, copies: int, count: int, memory_bytes: int):
    """Returns empty rows like `probe`, in memory or mapped from files."""

    def shape(part):
        return (copies, count, *part.shape[1:])

    size = sum(
        math.prod(shape(part)) * part.dtype.size
        for part in keras.tree.flatten(probe)
    )
    if size <= memory_bytes:
        return keras.tree.map_structure(
            lambda part: np.empty(shape(part), part.dtype.as_numpy_dtype), probe
        )
    parent = tempfile.gettempdir()
    free = shutil.disk_usage(parent).free
    if size > free:
        raise ValueError(
            f"The cached outputs of the frozen layers take {size} bytes: more "
            f"than cache_bytes={memory_bytes}, and than the {free} bytes free "
            f"in {parent}. Use fewer copies, a deeper branch point "
            "whose outputs are smaller, or an augmentation with copies=0, "
            "which caches nothing."
        )

    def mapped(part):
        with temporary_file() as file:
            _reserve(file, math.prod(shape(part)) * part.dtype.size)
            dtype = part.dtype.as_numpy_dtype
            return np.memmap(file, dtype, "r+", shape=shape(part))

    return keras.tree.map_structure(mapped, probe)


def _reserve(file, size: int) -> None:
    """Gives a file room on the disk for all of its bytes.

    Where a file without it is mapped, a full disk ends the process.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)
