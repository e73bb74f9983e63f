"""How exemplars are kept: as arrays, as JPEG, or in files.

A storage turns images into rows and back, and keeps none itself. A row is
what is stored of one image: an array, encoded bytes, or a file. Rows are read
in Python, a batch at a time.
"""

import abc
import dataclasses
import itertools
import os
import pathlib
import tempfile
import weakref
import zlib
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.exemplars.class_exemplars import StoredSamples
from keras_incremental.files import OwnedFolder, disk_errors
from keras_incremental.samples import ArraySamples, Samples, call_in_graph

# An image of one colour, with the encoder's tables, has 64.
_MOST_PIXELS_A_BYTE = 256


class Storage(abc.ABC):
    """How an `ExemplarMemory` keeps its images.

    Subclass it for a storage of your own: a frozen dataclass with a
    `get_config`, registered with `keras.saving` so that a memory can be
    loaded.

    Attributes:
        dtype: the only dtype of images that it keeps, or `None` for any.
    """

    dtype = None

    def check(self, image_spec: tf.TensorSpec) -> None:  # noqa: B027
        """Raises a `ValueError` for images that the storage cannot keep."""

    @abc.abstractmethod
    def encode(self, images: np.ndarray) -> np.ndarray:
        """Returns an array of what is stored, one row for each image."""

    @abc.abstractmethod
    def decode(self, rows: np.ndarray, image_spec: tf.TensorSpec) -> np.ndarray:
        """Returns the images `(count, h, w, c)` of rows."""

    def nbytes(self, rows: np.ndarray, image_spec: tf.TensorSpec) -> int:
        """Returns the bytes that are stored in rows."""
        pixels = image_spec.shape.num_elements()
        return len(rows) * pixels * image_spec.dtype.size

    def to_arrays(self, rows: np.ndarray, image_spec: tf.TensorSpec) -> dict:
        """Returns arrays by name from which `from_arrays` makes the rows.

        `images` is one of them, with the shape and dtype of an image.
        """
        return {"images": self.decode(rows, image_spec)}

    def from_arrays(self, arrays: dict) -> np.ndarray:
        """Returns the rows of what `to_arrays` returned."""
        return self.encode(arrays["images"])

    def samples(
        self, rows: np.ndarray, image_spec: tf.TensorSpec, labels: np.ndarray
    ) -> Samples:
        """Returns rows as samples for training."""
        return StoredSamples(self, image_spec, rows, labels)

    def get_config(self) -> dict:
        """Returns the arguments that make the same storage, JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "Storage":
        """Makes a storage of what `get_config` returned.

        It may come from a file that anyone has written: do not let it choose
        what is done outside of the memory, such as a folder.
        """
        return cls(**config)


@keras.saving.register_keras_serializable("keras_incremental")
@dataclasses.dataclass(frozen=True)
class RawStorage(Storage):
    """Keeps images as arrays in RAM, of any shape and dtype: the default.

    RAM: the images once in the memory, and once more while they are trained
    on; for a moment at the start of that, and while images are chosen, a copy
    of them besides.
    """

    def encode(self, images):
        return images.copy()

    def decode(self, rows, image_spec):
        return rows

    def samples(self, rows, image_spec, labels):
        return ArraySamples(rows, labels)


@keras.saving.register_keras_serializable("keras_incremental")
@dataclasses.dataclass(frozen=True)
class JpegStorage(Storage):
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
    dtype = "uint8"

    def __post_init__(self):
        if isinstance(self.quality, bool) or self.quality not in range(1, 101):
            raise ValueError(
                f"JpegStorage(quality={self.quality!r}); expected an integer "
                "from 1 to 100."
            )
        object.__setattr__(self, "quality", int(self.quality))  # of NumPy's

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

    def encode(self, images):
        rows = (
            tf.io.encode_jpeg(
                image, quality=self.quality, optimize_size=True
            ).numpy()
            for image in images
        )
        return np.fromiter(rows, object)

    def decode(self, rows, image_spec):
        images = np.empty((len(rows), *image_spec.shape), np.uint8)
        for image, row in zip(images, rows, strict=True):
            image[:] = _decode_jpeg(row, image_spec)
        return images

    def samples(self, rows, image_spec, labels):
        return _JpegSamples(self, image_spec, rows, labels)

    def nbytes(self, rows, image_spec):
        return sum(map(len, rows))

    def to_arrays(self, rows, image_spec):
        return {
            "images": np.empty((0, *image_spec.shape), np.uint8),
            "bytes": np.frombuffer(b"".join(rows), np.uint8),
            "sizes": np.array([*map(len, rows)], np.int64),
        }

    def from_arrays(self, arrays):
        content, sizes = arrays["bytes"], arrays["sizes"]
        is_whole = (
            (content.dtype, sizes.dtype) == (np.uint8, np.int64)
            and content.ndim == sizes.ndim == 1
            and sizes.min(initial=1) > 0
            and sum(sizes.tolist()) == len(content)
        )
        if not is_whole:
            raise ValueError(
                f"The sizes of {sizes.shape} JPEG images are not those of "
                f"their {content.shape} bytes."
            )
        parts = np.split(content, np.cumsum(sizes))[:-1]
        rows = np.fromiter((part.tobytes() for part in parts), object)
        for row in rows:
            _check_jpeg(row, arrays["images"].shape[1:])
        return rows


class _JpegSamples(StoredSamples):
    """Decodes batches in the graph, several at a time, without Python."""

    def batch(self, indices):
        text = tf.TensorSpec((), tf.string)
        (rows,) = call_in_graph(self._contents, [indices], [text])
        return tf.map_fn(
            lambda row: _decode_jpeg(row, self.image_spec),
            rows,
            fn_output_signature=self.image_spec,
        )

    def _contents(self, indices):
        return self._rows[indices]


def _check_jpeg(row: bytes, shape) -> None:
    """Refuses what is no image of this shape, without decoding it."""
    found = tuple(tf.io.extract_jpeg_shape(row).numpy())
    pixels = found[0] * found[1]
    if found != shape or pixels > _MOST_PIXELS_A_BYTE * len(row):
        raise ValueError(
            f"An image of {len(row)} bytes says that it is {found}; expected "
            f"{shape}."
        )


def _decode_jpeg(row, image_spec: tf.TensorSpec) -> tf.Tensor:
    image = tf.io.decode_jpeg(
        row, image_spec.shape[-1], dct_method="INTEGER_ACCURATE"
    )
    return tf.ensure_shape(image, image_spec.shape)


@keras.saving.register_keras_serializable("keras_incremental")
@dataclasses.dataclass(frozen=True)
class DiskStorage(Storage):
    """Keeps images in files, one each, of any shape and dtype.

    RAM: about a kilobyte for each image, and a few batches while they are
    trained on. The operating system may keep files in what memory is free.
    The files are deleted when no memory refers to them any more, and when
    the process that wrote them ends, but not when it is killed.
    `ExemplarMemory.save` is what keeps exemplars.

    Each file's checksum (CRC-32) is kept in RAM, and compared whenever the file
    is read: a file that was changed, exchanged or deleted is an error.

    Args:
        folder: The folder for the files; by default the temporary folder of the
            system. It is made if it does not exist, and is not saved with a
            memory.
    """

    folder: str | os.PathLike | None = None

    def encode(self, images):
        folder = _owned_folder(self.folder)
        with disk_errors(folder.path):
            rows = (_ImageFile(folder, image) for image in images)
            return np.fromiter(rows, object)

    def decode(self, rows, image_spec):
        images = np.empty(
            (len(rows), *image_spec.shape), image_spec.dtype.as_numpy_dtype
        )
        for row, image in zip(rows, images, strict=True):
            row.read_into(image)
        return images

    def to_arrays(self, rows, image_spec):
        checksums = np.array([row.checksum for row in rows], np.uint32)
        return {**super().to_arrays(rows, image_spec), "crc32": checksums}

    def from_arrays(self, arrays):
        found = [zlib.crc32(image.tobytes()) for image in arrays["images"]]
        if arrays["crc32"].tolist() != found:
            raise ValueError("An exemplar is not the one that was stored.")
        return super().from_arrays(arrays)

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        if config:
            raise ValueError(
                f"DiskStorage got {config} from a file; expected nothing. Its "
                "folder is yours to choose: pass storage=DiskStorage(folder)."
            )
        return cls()


_OWNED: Mapping = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()


def _owned_folder(parent) -> OwnedFolder:
    """Returns the folder of this process for the files of all its exemplars.

    It is one for all, because each holds a file open.
    """
    parent = pathlib.Path(parent or tempfile.gettempdir()).absolute()
    key = os.getpid(), parent
    folder = _OWNED.get(key) or OwnedFolder(parent, "exemplars")
    _OWNED[key] = folder
    return folder


class _ImageFile:
    """A file with one image, deleted with this object; copies are itself."""

    def __init__(self, folder: OwnedFolder, image: np.ndarray):
        self._folder = folder  # goes with the last of its files
        self.path = folder.path / str(next(_NUMBERS))
        finalizer = weakref.finalize(self, _remove, os.getpid(), self.path)
        finalizer.atexit = False  # the folder goes as a whole
        content = image.tobytes()
        self.checksum = zlib.crc32(content)
        self.path.write_bytes(content)

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        raise TypeError(
            "Exemplars in files cannot be pickled: the files are deleted with "
            "this process. Keep them by ExemplarMemory.save(folder)."
        )

    def read_into(self, image: np.ndarray) -> None:
        """Reads the file into a contiguous array.

        Raises:
            ValueError: If the file is not what was written; it is named.
        """
        content = image.reshape(-1).view(np.uint8).data
        try:
            with open(self.path, "rb", buffering=0) as file:
                count = file.readinto(content)
        except OSError as error:
            raise ValueError(
                f"{self.path}, an exemplar, cannot be read: {error}. The "
                "memory needs its files for as long as it is in use."
            ) from error
        if count != image.nbytes or zlib.crc32(content) != self.checksum:
            raise ValueError(
                f"{self.path} holds {count} bytes of an exemplar's "
                f"{image.nbytes}, or others than were written: it was changed "
                "while it was in use. Load the memory that was saved last, "
                "and choose a folder of its own for DiskStorage."
            )


def _remove(owner: int, path: pathlib.Path) -> None:
    """Removes a file, in the process that made it, and not in a fork."""
    if os.getpid() == owner:
        path.unlink(missing_ok=True)
