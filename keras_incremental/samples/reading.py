"""Reads and checks what a user passes to `fit`."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.labels import check_labels, whole_labels
from keras_incremental.progress import with_progress
from keras_incremental.samples.pixels import PixelReader, Pixels
from keras_incremental.samples.samples import (
    ArraySamples,
    MappedSamples,
    Samples,
)
from keras_incremental.samples.temporary_files import temporary_file

DEFAULT_CACHE_BYTES = 2 * 1024**3
_CHECKED_AT_ONCE = 1024
_MOST_OF_UNKNOWN_LENGTH = 1_000_000
_MOST_OF_DISK = 0.9
_IF_ENDLESS = "If it never ends, pass dataset.take(batches)."


def read_samples(
    x,
    y=None,
    *,
    image_shape,
    cache_bytes=DEFAULT_CACHE_BYTES,
    verbose=0,
    like: Pixels | None = None,
) -> Samples:
    """Reads and checks what a user passed to `fit`, once.

    Args:
        x: images `(samples, h, w, c)`, or a batched `tf.data.Dataset` or a
            `keras.utils.PyDataset` of `(images, labels)`.
        y: labels `(samples,)` or `(samples, 1)`; `None` with a dataset.
        image_shape: `(h, w, c)` that the model takes; `None` dimensions match
            any size.
        cache_bytes: the images of a dataset that take more than this are kept
            in a file of the temporary folder, which goes with the samples.
        verbose: 0 silent, else a progress bar once a dataset has taken two
            seconds.
        like: the images that the new ones join (`PixelReader`).

    Raises:
        ValueError: for wrong shapes, NaN or infinite pixels, another scale or
            values than those of `like`, no samples, bad labels
            (`check_labels`), an endless or unbatched dataset, one of unknown
            length that gives a million images, or too many for the disk.
        TypeError: for a wrong dtype or kind of data.
    """
    reader = PixelReader(like)
    if isinstance(x, (tf.data.Dataset, keras.utils.PyDataset)):
        if y is not None:
            raise ValueError(
                f"y was passed beside a {type(x).__name__}; expected the "
                "labels inside the dataset, as (images, labels) batches."
            )
        samples = _read_dataset(x, image_shape, reader, cache_bytes, verbose)
    else:
        _check_is_array(x)
        if y is None:
            raise ValueError(
                f"Labels are missing: fit got x of type {type(x).__name__} and "
                "no y. Pass fit(images, labels), or a batched tf.data.Dataset "
                "of (images, labels)."
            )
        samples = _read_arrays(x, y, image_shape, reader)
    reader.check_scale()
    samples.pixels = reader.pixels
    return samples


def _check_is_array(x) -> None:
    if not (hasattr(x, "__array__") or isinstance(x, (list, tuple))):
        raise TypeError(
            f"x is a {type(x).__name__}; with an IncrementalCallback fit takes "
            "arrays, or a batched tf.data.Dataset or keras.utils.PyDataset of "
            "(images, labels), which it reads once. Wrap a generator that ends "
            "in tf.data.Dataset.from_generator(...), or make it end by "
            ".take(batches)."
        )


def _read_arrays(x, y, image_shape, reader: PixelReader) -> ArraySamples:
    images = np.asarray(x)
    # A pixel's bytes in the order of this machine.
    images = images.astype(images.dtype.newbyteorder("="), copy=False)
    labels = check_labels(y)
    _check_image_spec(tf.TensorShape(images.shape), images.dtype, image_shape)
    if len(images) != len(labels):
        raise ValueError(
            f"{len(images)} images but {len(labels)} labels; expected one "
            "label for each image."
        )
    _check_not_empty(len(images))
    parts = [
        reader(images[start : start + _CHECKED_AT_ONCE])
        for start in range(0, len(images), _CHECKED_AT_ONCE)
    ]
    if parts[0].dtype != images.dtype:
        images = np.concatenate(parts)
    return ArraySamples(images, labels)


def _read_dataset(
    dataset, image_shape, reader: PixelReader, cache_bytes, verbose
) -> Samples:
    if isinstance(dataset, tf.data.Dataset):
        _check_dataset_spec(dataset, image_shape)
        batches = dataset.as_numpy_iterator()
        expected = int(dataset.cardinality())  # negative if unknown
    else:
        expected = _number_of_batches(dataset)
        batches = _batches_of(dataset, expected)
    labels = []
    batches = with_progress(
        _checked_batches(batches, image_shape, labels, reader, expected),
        max(expected, 0),
        "reading the images",
        verbose=verbose,
    )
    images = _collected(batches, cache_bytes, expected)
    kind = MappedSamples if isinstance(images, np.memmap) else ArraySamples
    samples = kind(images, np.concatenate(labels))
    samples.batch_size = len(labels[0])
    return samples


def _number_of_batches(dataset: keras.utils.PyDataset) -> int:
    try:
        count = dataset.num_batches
    except NotImplementedError:
        count = None
    if count is None:
        raise ValueError(
            f"The {type(dataset).__name__} has no num_batches, so it never "
            "ends; expected one pass over the new data. Give it a length."
        )
    return count


def _batches_of(dataset: keras.utils.PyDataset, count: int) -> Iterator[tuple]:
    """Yields each batch of `(images, labels)` once, as Keras in an epoch."""
    dataset.on_epoch_begin()
    for index in range(count):
        batch = dataset[index]
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise ValueError(
                f"Batch {index} of the {type(dataset).__name__} is a "
                f"{type(batch).__name__}; expected (images, labels), without "
                "sample weights or dictionaries."
            )
        yield np.asarray(batch[0]), whole_labels(batch[1])
    dataset.on_epoch_end()


def _checked_batches(
    batches, image_shape, labels: list, reader: PixelReader, expected: int
) -> Iterator[np.ndarray]:
    """Yields the images of each batch, and appends their labels to a list.

    Where it is not known how many batches there are, there may be no end.
    """
    count = 0
    for images, batch_labels in batches:
        _check_image_spec(
            tf.TensorShape(images.shape), images.dtype, image_shape
        )
        image_shape = images.shape[1:]
        labels.append(check_labels(batch_labels))
        count += len(images)
        if expected < 0 and count > _MOST_OF_UNKNOWN_LENGTH:
            raise ValueError(
                "The dataset does not say how many batches it has, and has "
                f"given {count} images; expected one pass over the new data. "
                f"{_IF_ENDLESS} If it does end, tell by dataset.apply(tf.data."
                "experimental.assert_cardinality(batches))."
            )
        yield reader(images)
    _check_not_empty(count)


def _collected(
    batches: Iterable[np.ndarray], cache_bytes: int, expected: int
) -> np.ndarray:
    """Returns all images, mapped from a file if they take more.

    `expected` batches will come, or an unknown number if it is negative.
    """
    kept, file, size, count = [], None, 0, 0
    with contextlib.ExitStack() as stack:
        for images in batches:
            kept.append(images)
            size += images.nbytes
            count += len(images)
            if size > cache_bytes:
                if file is None:
                    file = stack.enter_context(temporary_file())
                    needed = expected * kept[0].nbytes
                    free = shutil.disk_usage(tempfile.gettempdir()).free
                _check_room(count, max(size, needed), _MOST_OF_DISK * free)
                file.writelines(batch.tobytes() for batch in kept)
                kept.clear()
        if file is None:
            return np.concatenate(kept)
        file.flush()
        mapped = np.memmap(file, images.dtype, "r")
    return mapped.reshape(-1, *images.shape[1:])


def _check_room(count: int, size: int, room: float) -> None:
    if size > room:
        raise ValueError(
            f"The dataset takes {size} bytes or more, of which it has given "
            f"{count} images, and the disk has room for {room:.0f} in "
            f"{tempfile.gettempdir()}. {_IF_ENDLESS} Otherwise set the "
            "environment variable TMPDIR to a folder with more room."
        )


def _check_dataset_spec(dataset, image_shape) -> None:
    spec = dataset.element_spec
    is_pair = isinstance(spec, tuple) and len(spec) == 2
    if not is_pair or not all(isinstance(part, tf.TensorSpec) for part in spec):
        raise ValueError(
            f"The dataset's elements are {spec}; expected (images, labels) "
            "batches of two dense tensors, without sample weights, "
            "dictionaries or ragged tensors."
        )
    image_spec, _ = spec
    if image_spec.shape.rank == len(image_shape):
        raise ValueError(
            f"The dataset yields single images of shape {image_spec.shape}; "
            "expected batches. Call .batch(batch_size) on it first."
        )
    _check_image_spec(image_spec.shape, image_spec.dtype, image_shape)
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "The dataset never ends; expected one pass over the new data. "
            "Remove its .repeat(): fit repeats it for each epoch. Or pass "
            "dataset.take(batches)."
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


def _check_not_empty(count: int) -> None:
    if count == 0:
        raise ValueError(
            "fit got no images. A step needs at least one image; check how "
            "the task's data was selected."
        )
