"""One step's images and labels, checked once, in a fixed order.

`fit` accepts arrays and batched datasets; behind it everything works on
`Samples`: rows can be counted, looked up by index, and streamed again.
Data that fits the cache is kept as arrays, so that a dataset is decoded once;
larger data is streamed anew on each pass.
"""

import abc
import itertools
import math
import weakref
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.labels import check_labels

DEFAULT_CACHE_BYTES = 2 * 1024**3
_ALIGNMENT = 64
_CHECKED_AT_ONCE = 1024
_TAKEN_AT_ONCE = 64
LookUp = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Samples(abc.ABC):
    """Raw images with their labels, in a fixed order.

    Attributes:
        labels: `(samples,)` int64 or strings.
        image_spec: shape and dtype of one image.
        batch_size: of the dataset they were read from, or `None`.
    """

    labels: np.ndarray
    image_spec: tf.TensorSpec
    batch_size: int | None = None

    def __len__(self):
        return len(self.labels)

    @abc.abstractmethod
    def images(self) -> tf.data.Dataset:
        """Returns the images one by one, in the order of `labels`."""

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

    def look_up(self) -> LookUp | None:
        """Returns a function `(epoch, indices) -> images`, for graphs.

        `None` where images can only be streamed.
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

    def images(self):
        indices = tf.data.Dataset.range(len(self)).batch(_TAKEN_AT_ONCE)
        images = indices.map(self._batch).unbatch()
        return images.apply(tf.data.experimental.assert_cardinality(len(self)))

    def take(self, indices):
        return self._images[np.asarray(indices, int)]

    def all_images(self) -> np.ndarray:
        """Returns all images, `(samples, h, w, c)`, without a copy."""
        return self._images

    def look_up(self):
        return look_up_in_arrays([self._images])

    def _batch(self, indices) -> tf.Tensor:
        """Returns images `(len(indices), ...)`, in a graph.

        `from_tensor_slices` would copy all of them.
        """
        samples = weakref.ref(self)  # as in `KeptSamples._look_up`
        images = tf.numpy_function(
            lambda index: samples().take(index),
            [indices],
            self.image_spec.dtype,
            stateful=False,
        )
        return tf.ensure_shape(images, [None, *self.image_spec.shape])


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


class KeptSamples(Samples):
    """Rows computed once from other samples, several variants of each.

    Epoch `e` of training sees variant `e mod copies` of every sample. Rows
    are freed with this object: it must outlive the datasets that it gives.

    Args:
        rows: `(copies, samples, ...)`, in host memory or mapped from a file.
        labels: `(samples,)`, already checked.
        owner: kept for as long as the rows, e.g. the folder of the file.
    """

    def __init__(self, rows: np.ndarray, labels: np.ndarray, owner=None):
        self.rows, self.labels = rows, labels
        self.image_spec = tf.TensorSpec(rows.shape[2:], rows.dtype)
        self._owner = owner

    @property
    def copies(self) -> int:
        """Variants of each sample."""
        return len(self.rows)

    def images(self):
        look_up, spec = self._look_up(), self.image_spec
        return tf.data.Dataset.range(len(self)).map(
            lambda index: tf.ensure_shape(
                tf.numpy_function(look_up, [0, index], spec.dtype), spec.shape
            )
        )

    def take(self, indices):
        return self.rows[0, np.asarray(indices, int)]

    def batch(self, copy, indices) -> tf.Tensor:
        """Returns rows of one variant, `(len(indices), ...)`, in a graph.

        Args:
            copy: scalar integer tensor.
            indices: `(batch,)` integer tensor.
        """
        rows = tf.numpy_function(
            self._look_up(),
            [copy, indices],
            self.image_spec.dtype,
            stateful=False,
        )
        return tf.ensure_shape(rows, [None, *self.image_spec.shape])

    def look_up(self):
        return lambda epoch, indices: self.batch(epoch % self.copies, indices)

    def _look_up(self):
        """Returns a function that does not keep the rows alive.

        TensorFlow keeps what is passed to `numpy_function` till the process
        ends, and with it all that it refers to.
        """
        samples = weakref.ref(self)
        return lambda copy, indices: samples().rows[copy, indices]


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
    return lambda epoch, indices: tf.gather(tensor, indices)


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


def read_samples(
    x, y=None, *, image_shape, cache_bytes=DEFAULT_CACHE_BYTES, verbose=0
) -> Samples:
    """Reads and checks what a user passed to `fit`.

    Args:
        x: images `(samples, h, w, c)`, or a batched `tf.data.Dataset` of
            `(images, labels)`.
        y: labels `(samples,)` or `(samples, 1)`; `None` with a dataset.
        image_shape: `(h, w, c)` that the model takes; `None` dimensions match
            any size.
        cache_bytes: a dataset whose images take more than this is streamed.
        verbose: 0 silent, else a progress bar once a dataset is found to be
            too large to cache.

    Raises:
        ValueError: for wrong shapes, NaN or infinite pixels, no samples, bad
            labels (`check_labels`), an endless or unbatched dataset.
        TypeError: for a wrong dtype or kind of data.
    """
    if isinstance(x, tf.data.Dataset):
        if y is not None:
            raise ValueError(
                "y was passed beside a tf.data.Dataset; expected the labels "
                "inside the dataset, as (images, labels) batches."
            )
        return _read_dataset(x, image_shape, cache_bytes, verbose)
    _check_is_array(x)
    if y is None:
        raise ValueError(
            f"Labels are missing: fit got x of type {type(x).__name__} and no "
            "y. Pass fit(images, labels), or a batched tf.data.Dataset of "
            "(images, labels)."
        )
    return _read_arrays(x, y, image_shape)


def _check_is_array(x) -> None:
    if not (hasattr(x, "__array__") or isinstance(x, (list, tuple))):
        raise TypeError(
            f"x is a {type(x).__name__}; with an IncrementalCallback fit takes "
            "arrays, or a batched tf.data.Dataset of (images, labels). Wrap a "
            "generator in tf.data.Dataset.from_generator(...)."
        )


def _read_arrays(x, y, image_shape) -> ArraySamples:
    images = _in_native_order(np.asarray(x))
    labels = check_labels(y)
    _check_image_spec(tf.TensorShape(images.shape), images.dtype, image_shape)
    if len(images) != len(labels):
        raise ValueError(
            f"{len(images)} images but {len(labels)} labels; expected one "
            "label for each image."
        )
    _check_not_empty(len(images))
    for start in range(0, len(images), _CHECKED_AT_ONCE):
        check_pixels(images[start : start + _CHECKED_AT_ONCE], start)
    return ArraySamples(images, labels)


def _in_native_order(images: np.ndarray) -> np.ndarray:
    """Returns the images with the bytes of a pixel in this machine's order."""
    return images.astype(images.dtype.newbyteorder("="), copy=False)


def _read_dataset(dataset, image_shape, cache_bytes, verbose) -> Samples:
    _check_dataset_spec(dataset, image_shape)
    batches, labels, count, cached = [], [], 0, 0
    progress = keras.utils.Progbar(None, verbose=verbose, unit_name="batch")
    for images, batch_labels in dataset.as_numpy_iterator():
        _check_image_spec(
            tf.TensorShape(images.shape), images.dtype, image_shape
        )
        check_pixels(images, count)
        labels.append(check_labels(batch_labels))
        count += len(images)
        cached += images.nbytes
        batches.append(images)
        if cached > cache_bytes:
            batches.clear()
            progress.add(1)
    _check_not_empty(count)
    flat = np.concatenate(labels)
    if cached > cache_bytes:
        samples = StreamedSamples(dataset, flat)
    else:
        samples = ArraySamples(np.concatenate(batches), flat)
    samples.batch_size = len(labels[0])
    return samples


def _check_dataset_spec(dataset, image_shape) -> None:
    spec = dataset.element_spec
    if not (isinstance(spec, tuple) and len(spec) == 2):
        raise ValueError(
            f"The dataset's elements are {spec}; expected (images, labels) "
            "batches, without sample weights or dictionaries."
        )
    image_spec, label_spec = spec
    if not all(isinstance(part, tf.TensorSpec) for part in spec):
        raise ValueError(
            f"The dataset's elements are {spec}; expected one dense image "
            "tensor and one label tensor, no dictionaries or ragged tensors."
        )
    if image_spec.shape.rank == len(image_shape):
        raise ValueError(
            f"The dataset yields single images of shape {image_spec.shape}; "
            "expected batches. Call .batch(batch_size) on it first."
        )
    if not (label_spec.dtype.is_integer or label_spec.dtype == tf.string):
        raise TypeError(
            f"The dataset's labels have dtype {label_spec.dtype.name}; "
            "expected integers or strings."
        )
    _check_image_spec(image_spec.shape, image_spec.dtype, image_shape)
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "The dataset never ends; expected one pass over the new data. "
            "Remove its .repeat(): fit repeats it for each epoch."
        )


def _check_image_spec(shape: tf.TensorShape, dtype, image_shape) -> None:
    expected = tf.TensorShape([None, *image_shape])
    if not shape.is_compatible_with(expected):
        raise ValueError(
            f"Images have shape {tuple(shape)}; the model takes "
            f"{tuple(expected)}, batch first. Resize the images, or build the "
            "backbone with their input_shape."
        )
    dtype = tf.as_dtype(dtype)
    if not (dtype.is_integer or dtype.is_floating):
        raise TypeError(
            f"Images have dtype {dtype.name}; expected raw pixels, uint8 or "
            "float."
        )


def check_pixels(images: np.ndarray, first: int = 0) -> None:
    """Refuses images that hold NaN or infinite pixels.

    Args:
        images: `(samples, ...)`, any number dtype.
        first: index of the first of them, for the message.

    Raises:
        ValueError: naming the first such image.
    """
    if images.dtype.kind in "iu":
        return
    finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"Image {first + int(np.argmin(finite))} holds NaN or infinite "
            "pixels. Remove such images, or fill them, before fit."
        )


def _check_not_empty(count: int) -> None:
    if count == 0:
        raise ValueError(
            "fit got no images. A step needs at least one image; check how "
            "the task's data was selected."
        )
