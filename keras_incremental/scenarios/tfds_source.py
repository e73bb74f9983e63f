"""Images of TensorFlow Datasets (TFDS), which is imported when needed."""

import difflib
import functools
import math

import numpy as np
import tensorflow as tf

from keras_incremental.progress import with_progress
from keras_incremental.scenarios.array_source import ArrayImages
from keras_incremental.scenarios.class_labels import (
    as_labels,
    indices_by_label,
    merged,
)
from keras_incremental.scenarios.image_files import resize_and_crop

_SCANNED_TOGETHER = 1024
_DECODED_TOGETHER = 256


class TfdsImages:
    """One split of a TFDS data set, read from its files in their order.

    The labels are scanned once, on construction, without decoding images.
    A dataset of chosen images passes over the files, and decodes only those.

    Args:
        builder: a prepared `tfds.core.DatasetBuilder`.
        split: name of the split, or a slice of one such as `"train[:10%]"`.
        size: `(height, width)` in pixels, or `None` for the images' own.
        cache_bytes: images that take no more are decoded into memory when they
            are first asked for.
        samples_per_class: images of each class that will be asked for, the
            first in data set order; `None` for all.
    """

    def __init__(
        self, builder, split, size, cache_bytes, samples_per_class=None
    ):
        self._builder, self._split, self._size = builder, split, size
        self._image_key, self._label_key = supervised_keys(builder)
        self._feature = builder.info.features[self._image_key]
        self.image_shape = _image_shape(self._feature, size, builder.name)
        self.dtype = tf.as_dtype(self._feature.np_dtype)
        self.labels = as_labels(self._scan(), f"split {split!r}")
        used = indices_by_label(self.labels, samples_per_class)
        self._used = merged(used, list(used))
        pixels = len(self._used) * math.prod(self.image_shape)
        self._fits = pixels * self.dtype.size <= cache_bytes

    def dataset(self, indices):
        """Returns the unbatched `(image, label)` pairs of `indices`."""
        if self._fits:
            return self._loaded.dataset(np.searchsorted(self._used, indices))
        return self._read(indices)

    def _read(self, indices):
        wanted = np.zeros(len(self.labels), bool)
        wanted[indices] = True
        wanted = tf.constant(wanted)
        chosen = (
            encoded_examples(self._builder, self._split)
            .take(int(indices[-1]) + 1)
            .enumerate()
            .filter(lambda position, _: tf.gather(wanted, position))
            .map(self._decode, num_parallel_calls=tf.data.AUTOTUNE)
        )
        # Positions count from the first file: workers must share the images
        # out, not the files.
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        return chosen.with_options(options).apply(
            tf.data.experimental.assert_cardinality(len(indices))
        )

    @functools.cached_property
    def _loaded(self):
        shape = (len(self._used), *self.image_shape)
        images = np.empty(shape, self.dtype.as_numpy_dtype)
        batches = self._read(self._used).batch(_DECODED_TOGETHER).prefetch(2)
        start = 0
        for batch, _ in with_progress(batches, None, "reading the data"):
            images[start : start + len(batch)] = batch.numpy()
            start += len(batch)
        return ArrayImages(images, self.labels[self._used])

    def _scan(self):
        examples = encoded_examples(self._builder, self._split)
        labels = examples.map(lambda example: example[self._label_key])
        batches = labels.batch(_SCANNED_TOGETHER).prefetch(2)
        scanned = with_progress(batches, None, "reading the labels")
        none = np.array([], "int64")
        return np.concatenate([none, *(batch.numpy() for batch in scanned)])

    def _decode(self, _, example):
        image, label = example[self._image_key], example[self._label_key]
        if image.dtype == tf.string:
            image = self._feature.decode_example(image)
        if self._size is not None:
            image = resize_and_crop(image, self._size)
        image = tf.ensure_shape(image, self.image_shape)
        return image, tf.cast(label, "int64")


def encoded_examples(builder, split):
    """Returns the examples of a split with images as undecoded bytes.

    Raises:
        FileNotFoundError: the data set is not prepared.
    """
    import tensorflow_datasets as tfds

    image_key, label_key = supervised_keys(builder)
    only_needed = tfds.decode.PartialDecoding(
        {image_key: True, label_key: True},
        decoders={image_key: tfds.decode.SkipDecoding()},
    )
    try:
        return builder.as_dataset(
            split=split,
            decoders=only_needed,
            shuffle_files=False,
            read_config=tfds.ReadConfig(try_autocache=False),
        )
    except AssertionError as error:  # what TFDS raises for missing data
        raise FileNotFoundError(
            f"{_how_to_prepare(builder)} Or allow it with download=True."
        ) from error


def supervised_keys(builder):
    """Returns the names of the image and of the label feature.

    Raises:
        ValueError: the data set is not one of images with one label each.
    """
    import tensorflow_datasets as tfds

    keys = builder.info.supervised_keys
    features = builder.info.features
    if keys is not None and [type(key) for key in keys] == [str, str]:
        image, label = (features[key] for key in keys)
        if (
            isinstance(image, tfds.features.Image)
            and label.shape == ()
            and np.issubdtype(label.np_dtype, np.integer)
        ):
            return keys
    raise ValueError(
        f"The data set {builder.name!r} has the features {features} with "
        f"supervised keys {keys}; expected images with one integer label "
        "each. Pass it as arrays with from_arrays."
    )


def open_builder(name, data_dir, download):
    """Returns the TFDS builder of a data set, prepared if that is possible.

    Nothing is asked of the network if the data is already prepared.

    Args:
        name: TFDS name, with config and version if wanted.
        data_dir: where prepared data is kept; `None` is TFDS's own default.
        download: whether to download and prepare data that is not there.

    Raises:
        ValueError: there is no such data set.
        FileNotFoundError: not prepared, and the download failed.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name, known)
        hint = f"Did you mean {' or '.join(close)}? " if close else ""
        raise ValueError(
            f"TensorFlow Datasets has no data set {name!r}. {hint}"
            "tfds.list_builders() lists all names."
        ) from error
    if download and not builder.is_prepared():
        try:
            builder.download_and_prepare()
        except Exception as error:
            raise FileNotFoundError(
                f"{_how_to_prepare(builder)} Downloading it now failed with "
                f"{type(error).__name__}: {error}"
            ) from error
    return builder


def choose_test_split(builder):
    """Returns `"test"` if its images are labelled, else `"validation"`.

    Some data sets (imagenet2012) have a test split whose labels are all -1.
    """
    names = builder.info.splits
    if names and "test" not in names:
        return "validation"
    _, label_key = supervised_keys(builder)
    first = next(iter(encoded_examples(builder, "test").take(1)), None)
    labelled = first is not None and int(first[label_key]) >= 0
    return "test" if labelled else "validation"


def label_names(builder):
    """Returns the names by label; `None` if the labels have none."""
    _, label_key = supervised_keys(builder)
    return getattr(builder.info.features[label_key], "names", None)


def _image_shape(feature, size, name):
    shape = feature.shape
    if size is not None:
        shape = (*size, shape[-1])
    if None in shape:
        raise ValueError(
            f"The images of {name!r} have the shape {feature.shape}, of "
            "varying size. Pass image_size, for example image_size=224."
        )
    return tuple(shape)


def _how_to_prepare(builder):
    return (
        f"The data set {builder.name!r} is not prepared in "
        f"{str(builder.data_path)!r}. Pass the data_dir that holds it, or "
        f"prepare it once with network access: `tfds build {builder.name} "
        "--data_dir=...`."
    )
