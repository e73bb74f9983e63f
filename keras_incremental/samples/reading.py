"""Reads and checks what a user passes to `fit`."""

import contextlib
import tempfile
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.files import OwnedFolder
from keras_incremental.labels import check_labels
from keras_incremental.samples.samples import (
    ArraySamples,
    MappedSamples,
    Samples,
)
from keras_incremental.samples.temporary_files import check_room, filling

DEFAULT_CACHE_BYTES = 2 * 1024**3
_CHECKED_AT_ONCE = 1024


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
        cache_bytes: the images of a dataset that take more than this are kept
            in a file of the temporary folder, which goes with the samples.
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
    labels = []
    batches = _checked_batches(dataset, image_shape, labels)
    images, folder = _collected(
        batches, cache_bytes, verbose, int(dataset.cardinality())
    )
    flat = np.concatenate(labels)
    if folder is None:
        samples = ArraySamples(images, flat)
    else:
        samples = MappedSamples(images, flat, folder)
    samples.batch_size = len(labels[0])
    return samples


def _checked_batches(dataset, image_shape, labels) -> Iterator[np.ndarray]:
    """Yields the images of each batch, and appends their labels to a list."""
    count = 0
    for images, batch_labels in dataset.as_numpy_iterator():
        _check_image_spec(
            tf.TensorShape(images.shape), images.dtype, image_shape
        )
        check_pixels(images, count)
        labels.append(check_labels(batch_labels))
        image_shape, count = images.shape[1:], count + len(images)
        yield images
    _check_not_empty(count)


def _collected(batches, cache_bytes, verbose, count: int):
    """Returns all images, and the folder of their file if they take more.

    `count` batches are expected, or an unknown number if it is negative.
    """
    kept, folder, size = [], None, 0
    progress = keras.utils.Progbar(None, verbose=verbose, unit_name="batch")
    with contextlib.ExitStack() as stack:
        for images in batches:
            kept.append(images)
            size += images.nbytes
            if size > cache_bytes:
                if folder is None:
                    folder = OwnedFolder(tempfile.gettempdir(), "samples")
                    stack.enter_context(filling(folder))
                    check_room(folder, count * kept[0].nbytes)
                    path = folder.path / "images"
                    file = stack.enter_context(path.open("wb"))
                file.writelines(batch.tobytes() for batch in kept)
                kept.clear()
                progress.add(1)
    if folder is None:
        return np.concatenate(kept), None
    mapped = np.memmap(path, images.dtype, "r")
    return mapped.reshape(-1, *images.shape[1:]), folder


def _check_dataset_spec(dataset, image_shape) -> None:
    spec = dataset.element_spec
    is_pair = isinstance(spec, tuple) and len(spec) == 2
    if not is_pair or not all(isinstance(part, tf.TensorSpec) for part in spec):
        raise ValueError(
            f"The dataset's elements are {spec}; expected (images, labels) "
            "batches of two dense tensors, without sample weights, "
            "dictionaries or ragged tensors."
        )
    image_spec, label_spec = spec
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
