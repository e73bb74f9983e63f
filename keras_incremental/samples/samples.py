"""Images and labels in a fixed order, in memory or streamed."""

import abc
import itertools
import math
import weakref
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

_ALIGNMENT = 64
_TAKEN_AT_ONCE = 64
# From an epoch and indices `(batch,)` to columns by name, each a tensor or a
# tuple of tensors, batch first.
LookUp = Callable[[tf.Tensor, tf.Tensor], dict]


class Samples(abc.ABC):
    """Raw images with their labels, in a fixed order.

    Attributes:
        labels: `(samples,)` int64 or strings.
        image_spec: shape and dtype of one image.
        batch_size: That of the dataset they were read from, or `None`.
        name: Name of their column in batches.
        copies: variants of each image.
    """

    labels: np.ndarray
    image_spec: tf.TensorSpec
    batch_size: int | None = None
    name = "images"
    copies = 1

    def __len__(self):
        return len(self.labels)

    def images(self) -> tf.data.Dataset:
        """Returns the images one by one, in the order of `labels`."""
        indices = tf.data.Dataset.range(len(self)).batch(_TAKEN_AT_ONCE)
        images = indices.map(
            self.batch, num_parallel_calls=tf.data.AUTOTUNE
        ).unbatch()
        return images.apply(tf.data.experimental.assert_cardinality(len(self)))

    @abc.abstractmethod
    def take(self, indices) -> np.ndarray:
        """Returns the images at `indices`, `(len(indices), h, w, c)`."""

    def parts(self, indices) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the images at `indices`, a few at a time, in one pass.

        Args:
            indices: `(n,)`, none of them twice.

        Yields:
            `(positions, images)`: where in `indices` they are asked for, and
            images `(len(positions), h, w, c)`.
        """
        for first in range(0, len(indices), _TAKEN_AT_ONCE):
            part = indices[first : first + _TAKEN_AT_ONCE]
            yield first + np.arange(len(part)), self.take(part)

    def batch(self, indices: tf.Tensor) -> tf.Tensor:
        """Returns the images at `indices`, in a graph."""
        (images,) = call_in_graph(self.take, [indices], [self.image_spec])
        return images

    def definite_spec(self) -> tf.TensorSpec:
        """Returns `image_spec`, with the shape of the first image."""
        if self.image_spec.shape.is_fully_defined():
            return self.image_spec
        return tf.TensorSpec(self.take([0]).shape[1:], self.image_spec.dtype)

    def look_up(self) -> LookUp | None:
        """Returns a function `(epoch, indices) -> {"images": images}`.

        It is for graphs; `None` where images can only be streamed.
        """
        return None

    def of_label(self, label) -> np.ndarray:
        """Returns the indices of the samples with this label."""
        return np.flatnonzero(self.labels == label)


class ArraySamples(Samples):
    """Samples kept in host memory.

    Args:
        images: `(samples, height, width, channels)`.
        labels: `(samples,)`, already checked.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self._images, self.labels = images, labels
        self.image_spec = tf.TensorSpec(images.shape[1:], images.dtype)

    def take(self, indices):
        return self._images[np.asarray(indices, int)]

    def all_images(self) -> np.ndarray:
        """Returns all images, `(samples, h, w, c)`, without a copy."""
        return self._images

    def look_up(self):
        return look_up_in_arrays([self._images])


class StreamedSamples(Samples):
    """Samples read anew from a batched dataset on each pass.

    Args:
        dataset: batches of `(images, labels)`, in the same order every time;
            a pass that brings other labels than the first is an error.
        labels: `(samples,)`, as the first pass gave them.
    """

    def __init__(self, dataset: tf.data.Dataset, labels: np.ndarray):
        self._dataset, self.labels = dataset, labels
        image_spec = dataset.element_spec[0]
        self.image_spec = tf.TensorSpec(image_spec.shape[1:], image_spec.dtype)

    def images(self):
        flat = self._dataset.map(
            lambda images, labels: (images, _flat_labels(labels))
        ).unbatch()
        expected = tf.data.Dataset.from_tensor_slices(self.labels)
        images = tf.data.Dataset.zip(flat, expected).map(
            _checked_image, num_parallel_calls=tf.data.AUTOTUNE
        )
        return images.apply(tf.data.experimental.assert_cardinality(len(self)))

    def take(self, indices):
        indices = np.asarray(indices, int)
        wanted = np.unique(indices)
        rows = [image for _, image in self._chosen(wanted)]
        if not rows:
            return np.zeros((0, *self.image_spec.shape), np.uint8)
        return np.stack(rows)[np.searchsorted(wanted, indices)]

    def parts(self, indices):
        indices = np.asarray(indices, int)
        order = np.argsort(indices)
        chosen = self._chosen(indices[order])
        while part := list(itertools.islice(chosen, _TAKEN_AT_ONCE)):
            ranks, images = zip(*part, strict=True)
            yield order[list(ranks)], np.stack(images)

    def _chosen(self, indices) -> Iterator[tuple[int, np.ndarray]]:
        """Yields `(rank, image)` of the images at rising indices."""
        wanted = np.zeros(len(self), bool)
        wanted[indices] = True
        mask = tf.data.Dataset.from_tensor_slices(wanted)
        chosen = tf.data.Dataset.zip(self.images(), mask).filter(
            lambda image, keep: keep
        )
        images = (image for image, _ in chosen.as_numpy_iterator())
        return enumerate(images)


def call_in_graph(method: Callable, inputs, specs) -> list[tf.Tensor]:
    """Calls a bound method in a graph, and does not keep its object alive.

    TensorFlow keeps what is passed to `numpy_function` till the process ends.

    Args:
        method: from arrays to an array, or a list of arrays, batch first.
        inputs: its arguments, tensors.
        specs: `tf.TensorSpec` of a row of each array that it returns.
    """
    method = weakref.WeakMethod(method)
    values = tf.numpy_function(
        lambda *arrays: method()(*arrays),
        inputs,
        [spec.dtype for spec in specs],
        stateful=False,
    )
    return [
        tf.ensure_shape(value, [None, *spec.shape])
        # Outside of a graph a single tensor comes without its list.
        for value, spec in zip(tf.nest.flatten(values), specs, strict=True)
    ]


def look_up_in_arrays(arrays: Sequence[np.ndarray]) -> LookUp:
    """Returns one look-up in arrays behind one another, of which it has a copy.

    Args:
        arrays: `(samples, ...)` each, all with the same shape of a row.
    """
    dtype = np.result_type(*arrays)
    shape = (sum(map(len, arrays)), *arrays[0].shape[1:])
    memory = _aligned_bytes(math.prod(shape) * dtype.itemsize)
    np.concatenate(arrays, out=memory.view(dtype).reshape(shape))
    # Shares the memory, where `tf.constant` would make a second copy, and a
    # third on its way; TensorFlow gives back none of them to the system.
    capsule = memory.reshape(-1, dtype.itemsize).__dlpack__()
    with tf.device("CPU:0"):  # a data set need not fit a GPU
        values = tf.bitcast(tf.experimental.dlpack.from_dlpack(capsule), dtype)
        tensor = tf.reshape(values, shape)
    return lambda epoch, indices: {"images": tf.gather(tensor, indices)}


def _aligned_bytes(size: int) -> np.ndarray:
    """Returns bytes that begin where TensorFlow wants its tensors to."""
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + size]


def _flat_labels(labels):
    if not labels.dtype.is_integer:
        return tf.reshape(labels, [-1])
    return tf.cast(tf.reshape(labels, [-1]), tf.int64)


def _checked_image(sample, expected):
    image, label = sample
    check = tf.debugging.Assert(
        tf.equal(label, expected),
        [
            "The dataset's order changes from pass to pass, which data larger "
            "than cache_bytes must not. Remove its .shuffle(): the callback "
            "shuffles. Label now and before:",
            label,
            expected,
        ],
    )
    with tf.control_dependencies([check]):
        return tf.identity(image)
