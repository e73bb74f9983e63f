"""How exemplars are kept: as arrays, as JPEG or PNG, or in files.

A storage turns images into rows and back, and keeps none itself. A row is
what is stored of one image: an array, encoded bytes, or a file. Rows are read
in Python, a batch at a time, and decoded by TensorFlow, in parallel.
"""

import abc
import dataclasses
import os
import pathlib
import shutil
import tempfile
import weakref

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.exemplars.class_exemplars import StoredSamples
from keras_incremental.samples import ArraySamples, Samples


class Storage(abc.ABC):
    """How an `ExemplarMemory` keeps its images.

    Subclass it for a storage of your own: a frozen dataclass with a
    `get_config`, registered with `keras.saving` so that a memory can be
    loaded.
    """

    def check(self, image_spec: tf.TensorSpec) -> None:  # noqa: B027
        """Raises a `ValueError` for images that the storage cannot keep."""

    @abc.abstractmethod
    def image_bytes(self, image_spec: tf.TensorSpec) -> int:
        """Returns the bytes that an image takes; if they differ, the fewest."""

    @abc.abstractmethod
    def encode(self, images: np.ndarray) -> list:
        """Returns the rows of images `(count, h, w, c)`."""

    @abc.abstractmethod
    def to_bytes(self, row) -> bytes:
        """Returns what is stored in a row."""

    @abc.abstractmethod
    def from_bytes(self, contents: list[bytes], image_spec) -> list:
        """Returns the rows that store these bytes."""

    def join(self, rows: list, image_spec: tf.TensorSpec) -> np.ndarray:
        """Returns an array with one entry for each row."""
        joined = np.empty(len(rows), object)
        joined[:] = rows
        return joined

    def sizes(self, rows: np.ndarray, image_spec) -> np.ndarray:
        """Returns the bytes stored in each of joined rows, int64."""
        return np.full(len(rows), self.image_bytes(image_spec), np.int64)

    @abc.abstractmethod
    def row_dtype(self, image_spec: tf.TensorSpec) -> tf.DType:
        """Returns the dtype of what `read` returns."""

    @abc.abstractmethod
    def read(self, rows: np.ndarray, image_spec: tf.TensorSpec) -> np.ndarray:
        """Returns what `decode` takes, one entry for each of joined rows."""

    @abc.abstractmethod
    def decode(self, rows: tf.Tensor, image_spec) -> tf.Tensor:
        """Returns images `(count, h, w, c)` of what `read` returned."""

    def samples(self, rows: np.ndarray, image_spec, labels) -> Samples:
        """Returns joined rows as samples for training."""
        return StoredSamples(self, image_spec, rows, labels)

    def get_config(self) -> dict:
        """Returns the arguments that make the same storage, JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "Storage":
        """Makes a storage of what `get_config` returned."""
        return cls(**config)


@keras.saving.register_keras_serializable("keras_incremental")
@dataclasses.dataclass(frozen=True)
class RawStorage(Storage):
    """Keeps images as arrays in RAM, of any shape and dtype: the default.

    RAM: the images once in the memory, and once more while they are trained
    on; for a moment at the start of that, and while images are chosen, a copy
    of them besides.

    >>> RawStorage().image_bytes(tf.TensorSpec((32, 32, 3), "uint8"))
    3072
    """

    def image_bytes(self, image_spec):
        return image_spec.shape.num_elements() * image_spec.dtype.size

    def encode(self, images):
        return [image.copy() for image in images]  # freed one by one

    def to_bytes(self, row):
        return row.tobytes()

    def from_bytes(self, contents, image_spec):
        return [_as_image(content, image_spec) for content in contents]

    def join(self, rows, image_spec):
        if rows:
            return np.stack(rows)
        return np.zeros((0, *image_spec.shape), image_spec.dtype.as_numpy_dtype)

    def row_dtype(self, image_spec):
        return image_spec.dtype

    def read(self, rows, image_spec):
        return rows

    def decode(self, rows, image_spec):
        return tf.ensure_shape(rows, [None, *image_spec.shape])

    def samples(self, rows, image_spec, labels):
        return ArraySamples(rows, labels)


class _EncodedStorage(Storage):
    """Keeps uint8 images encoded in RAM, and decodes each batch anew."""

    def check(self, image_spec):
        shape = tuple(image_spec.shape)
        fits = len(shape) == 3 and shape[-1] in (1, 3)
        if image_spec.dtype != tf.uint8 or not fits:
            raise ValueError(
                f"{self!r} got images of {image_spec.dtype.name} {shape}; "
                "expected uint8 images (height, width, channels) of 1 or 3 "
                "channels. Pass such images, or keep these as they are, with "
                "RawStorage() or DiskStorage()."
            )

    @abc.abstractmethod
    def _encode_one(self, image: tf.Tensor) -> tf.Tensor:
        """Returns an image's bytes, in a graph."""

    @abc.abstractmethod
    def _decode_one(self, content: tf.Tensor, channels: int) -> tf.Tensor:
        """Returns the image of some bytes, in a graph."""

    def image_bytes(self, image_spec):
        """Returns the bytes of a black image; hardly any takes fewer."""
        black = np.zeros((1, *image_spec.shape), np.uint8)
        (row,) = self.encode(black)
        return len(row)

    def encode(self, images):
        encoded = tf.data.Dataset.from_tensor_slices(images).map(
            self._encode_one, num_parallel_calls=tf.data.AUTOTUNE
        )
        return list(encoded.as_numpy_iterator())

    def to_bytes(self, row):
        return row

    def from_bytes(self, contents, image_spec):
        return contents

    def sizes(self, rows, image_spec):
        return np.array([len(row) for row in rows], np.int64)

    def row_dtype(self, image_spec):
        return tf.string

    def read(self, rows, image_spec):
        return rows

    def decode(self, rows, image_spec):
        rows = tf.ensure_shape(rows, [None])

        def decode_one(content):
            image = self._decode_one(content, image_spec.shape[-1])
            return tf.ensure_shape(image, image_spec.shape)

        def decode_all():
            # Not `tf.map_fn`, which decodes one image after the other.
            images = tf.data.Dataset.from_tensor_slices(rows).map(
                decode_one, num_parallel_calls=tf.data.AUTOTUNE
            )
            batch = images.batch(tf.size(rows, tf.int64))
            options = tf.data.Options()
            options.autotune.enabled = False
            return batch.with_options(options).get_single_element()

        empty = tf.zeros([0, *image_spec.shape], image_spec.dtype)
        images = tf.cond(tf.size(rows) > 0, decode_all, lambda: empty)
        return tf.ensure_shape(images, [None, *image_spec.shape])


@keras.saving.register_keras_serializable("keras_incremental")
@dataclasses.dataclass(frozen=True)
class JpegStorage(_EncodedStorage):
    """Keeps uint8 images as JPEG in RAM: smaller, and not quite the same.

    RAM: the encoded images, and a few decoded batches while they are trained
    on, however many images there are.

    Args:
        quality: 1 to 100. Colours are stored at half the resolution, as JPEG
            does by default.

    Raises:
        ValueError: For another quality.

    >>> JpegStorage().quality
    95
    """

    quality: int = 95

    def __post_init__(self):
        if isinstance(self.quality, bool) or self.quality not in range(1, 101):
            raise ValueError(
                f"JpegStorage(quality={self.quality!r}); expected an integer "
                "from 1 to 100."
            )
        object.__setattr__(self, "quality", int(self.quality))  # of NumPy's

    def _encode_one(self, image):
        return tf.io.encode_jpeg(image, quality=self.quality)

    def _decode_one(self, content, channels):
        return tf.io.decode_jpeg(
            content, channels, dct_method="INTEGER_ACCURATE"
        )


@keras.saving.register_keras_serializable("keras_incremental")
@dataclasses.dataclass(frozen=True)
class PngStorage(_EncodedStorage):
    """Keeps uint8 images as PNG in RAM: the same pixels, in less room.

    RAM: as for `JpegStorage`.

    >>> black = np.zeros((1, 32, 32, 3), np.uint8)
    >>> len(*PngStorage().encode(black)) < black.nbytes
    True
    """

    def _encode_one(self, image):
        return tf.io.encode_png(image)

    def _decode_one(self, content, channels):
        return tf.io.decode_png(content, channels)


@keras.saving.register_keras_serializable("keras_incremental")
@dataclasses.dataclass(frozen=True)
class DiskStorage(Storage):
    """Keeps images in files, one each, of any shape and dtype.

    RAM: about a kilobyte for each image, and a few batches while they are
    trained on. The operating system may keep files in what memory is free.
    The files are deleted when no memory refers to them any more, and when
    the process ends, but not when it is killed. `ExemplarMemory.save` is what
    keeps exemplars.

    Args:
        folder: The folder for the files; by default the temporary folder of the
            system. It is made if it does not exist, and is not saved with a
            memory.

    >>> DiskStorage().image_bytes(tf.TensorSpec((32, 32, 3), "uint8"))
    3072
    """

    folder: str | os.PathLike | None = None

    def image_bytes(self, image_spec):
        return image_spec.shape.num_elements() * image_spec.dtype.size

    def encode(self, images):
        folder = _Folder(self.folder)
        return [
            _ImageFile(folder, str(number), image)
            for number, image in enumerate(images)
        ]

    def to_bytes(self, row):
        return row.path.read_bytes()

    def from_bytes(self, contents, image_spec):
        return self.encode([_as_image(part, image_spec) for part in contents])

    def row_dtype(self, image_spec):
        return image_spec.dtype

    def read(self, rows, image_spec):
        images = np.empty(
            (len(rows), *image_spec.shape), image_spec.dtype.as_numpy_dtype
        )
        for row, image in zip(rows, images, strict=True):
            row.read_into(image)
        return images

    def decode(self, rows, image_spec):
        return tf.ensure_shape(rows, [None, *image_spec.shape])

    def get_config(self):
        return {}


def storage_record(storage: Storage) -> dict:
    """Returns what `recorded_storage` makes the same storage of, JSON types.

    >>> storage_record(JpegStorage(90))["config"]
    {'quality': 90}
    """
    return {
        "name": keras.saving.get_registered_name(type(storage)),
        "config": storage.get_config(),
    }


def recorded_storage(record: dict) -> Storage:
    """Makes a storage of what `storage_record` returned.

    Raises:
        ValueError: If its class is not registered with `keras.saving`.
    """
    storage = keras.saving.get_registered_object(record["name"])
    if storage is None:
        raise ValueError(
            f"The memory was saved with the storage {record['name']!r}, which "
            "is not registered. Import the module that registers it with "
            "keras.saving first."
        )
    return storage.from_config(record["config"])


class _OnDisk:
    """What stands for something on disk: all its copies are one object."""

    def __deepcopy__(self, memo):
        return self

    def __copy__(self):
        return self

    def __reduce__(self):
        raise TypeError(
            "Exemplars in files cannot be pickled: the files are deleted with "
            "this process. Keep them by ExemplarMemory.save(folder)."
        )


class _Folder(_OnDisk):
    """A new folder, deleted with this object."""

    def __init__(self, parent):
        if parent is not None:
            parent = pathlib.Path(parent).absolute()
            parent.mkdir(parents=True, exist_ok=True)
        self.path = tempfile.mkdtemp(prefix="exemplars_", dir=parent)
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class _ImageFile(_OnDisk):
    """A file with one image, deleted with this object."""

    def __init__(self, folder: _Folder, name: str, image: np.ndarray):
        self._folder = folder  # goes with the last of its files
        self.path = pathlib.Path(folder.path, name)
        self.path.write_bytes(image.tobytes())
        finalizer = weakref.finalize(self, _remove, str(self.path))
        finalizer.atexit = False  # the folder goes as a whole

    def read_into(self, image: np.ndarray) -> None:
        """Reads the file into a contiguous array."""
        with open(self.path, "rb", buffering=0) as file:
            count = file.readinto(image.reshape(-1).view(np.uint8).data)
        if count != image.nbytes:
            raise OSError(
                f"{self.path} holds {count} bytes of an exemplar's "
                f"{image.nbytes}: it was changed while it was in use."
            )


def _remove(path: str) -> None:
    pathlib.Path(path).unlink(missing_ok=True)


def _as_image(content: bytes, image_spec: tf.TensorSpec) -> np.ndarray:
    flat = np.frombuffer(content, image_spec.dtype.as_numpy_dtype)
    return flat.reshape(image_spec.shape)
