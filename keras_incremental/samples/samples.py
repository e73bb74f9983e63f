"""Images and labels in a fixed order, in memory or in a file."""

import abc
import math
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_incremental.samples.pixels import Pixels

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
        pixels: dtype and range of the images, or `None` if not known.
    """

    labels: np.ndarray
    image_spec: tf.TensorSpec
    batch_size: int | None = None
    name = "images"
    copies = 1
    pixels: Pixels | None = None

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

    def batch(self, indices: tf.Tensor) -> tf.Tensor:
        """Returns the images at `indices`, in a graph."""
        (images,) = call_in_graph(self.take, [indices], [self.image_spec])
        return images

    def look_up(self) -> LookUp:
        """Returns a function `(epoch, indices) -> {"images": images}`.

        It is for graphs.
        """
        return lambda epoch, indices: {"images": self.batch(indices)}

    def of_label(self, label) -> np.ndarray:
        """Returns the indices of the samples with this label."""
        return np.flatnonzero(self.labels == label)


class _SamplesOfArray(Samples):
    """Samples whose images are one array.

    Args:
        images: `(samples, height, width, channels)`.
        labels: `(samples,)`, already checked.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self._images, self.labels = images, labels
        self.image_spec = tf.TensorSpec(images.shape[1:], images.dtype)

    def take(self, indices):
        return np.asarray(self._images[np.asarray(indices, int)])


class ArraySamples(_SamplesOfArray):
    """Samples kept in host memory.

    Args:
        images: `(samples, height, width, channels)`.
        labels: `(samples,)`, already checked.
    """

    def all_images(self) -> np.ndarray:
        """Returns all images, `(samples, h, w, c)`, without a copy."""
        return self._images

    def look_up(self):
        return look_up_in_arrays([self._images])


class MappedSamples(_SamplesOfArray):
    """Samples kept in a file, of which the system holds what there is room for.

    Args:
        images: `(samples, height, width, channels)`, mapped from the file.
        labels: `(samples,)`, already checked.
    """


class ChosenSamples(Samples):
    """Some of other samples, without a copy.

    Args:
        samples: the others.
        indices: `(n,)`, which of them.

    >>> samples = ArraySamples(np.zeros((3, 2, 2, 1)), np.array([5, 6, 7]))
    >>> ChosenSamples(samples, [2, 0]).labels
    array([7, 5])
    """

    def __init__(self, samples: Samples, indices):
        self._samples, self._indices = samples, np.asarray(indices, int)
        self.labels = samples.labels[self._indices]
        self.image_spec = samples.image_spec

    def take(self, indices):
        return self._samples.take(self._indices[np.asarray(indices, int)])

    def look_up(self):
        look_up = self._samples.look_up()
        chosen = tf.constant(self._indices)
        return lambda epoch, indices: look_up(epoch, tf.gather(chosen, indices))


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
