"""The file of a memory's images, `images.npy`, written and read in pieces.

It is a NumPy file, of raw images `(count, h, w, c)`, or of the bytes of encoded
ones behind one another.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from keras_incremental.exemplars.class_exemplars import ClassExemplars
from keras_incremental.exemplars.codecs import Storage

_AT_ONCE = 64


def write_images_file(file, images: Sequence[ClassExemplars]) -> dict:
    """Writes stored images, class by class.

    Args:
        file: open for writing bytes.
        images: of each class.

    Returns:
        what `read_images_file` needs to know beside, JSON types: for encoded
        images their sizes in bytes, shape and dtype.
    """
    storage, spec = images[0].storage, images[0].image_spec
    sizes = np.concatenate([ranked.sizes for ranked in images]).tolist()
    is_raw = storage.image_bytes(spec) is not None
    dtype = np.dtype(spec.dtype.as_numpy_dtype if is_raw else np.uint8)
    np.lib.format.write_array_header_1_0(
        file,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": (len(sizes), *spec.shape) if is_raw else (sum(sizes),),
        },
    )
    for ranked in images:
        for row in ranked.rows:
            file.write(storage.to_bytes(row))
    if is_raw:
        return {}
    return {
        "sizes": sizes,
        "image_shape": list(spec.shape),
        "image_dtype": spec.dtype.name,
    }


def read_images_file(
    file, name, storage: Storage, record: dict
) -> Iterator[ClassExemplars]:
    """Yields the stored images of each class.

    Args:
        file: open for reading bytes.
        name: of the file, for messages.
        storage: as they were stored.
        record: `counts`, and what `write_images_file` returned.

    Raises:
        ValueError: if the file holds anything else.
    """
    count = sum(record["counts"])
    shape, dtype = _read_header(file, name)
    if "sizes" in record:
        sizes, image_dtype = record["sizes"], record["image_dtype"]
        spec = tf.TensorSpec(record["image_shape"], image_dtype)
        found = len(sizes) if shape == (sum(sizes),) else "other"
    else:
        spec = tf.TensorSpec(shape[1:], dtype)
        sizes = [math.prod(shape[1:]) * dtype.itemsize] * count
        found = shape[0]
    if found != count:
        raise ValueError(
            f"{name} holds {found} images, but memory.json counts {count}."
        )
    remaining = iter(sizes)
    for count in record["counts"]:
        rows = []
        while len(rows) < count:
            part = range(min(_AT_ONCE, count - len(rows)))
            contents = [file.read(next(remaining)) for _ in part]
            rows += storage.from_bytes(contents, spec)
        yield ClassExemplars.of_rows(storage, spec, rows)


def _read_header(file, name) -> tuple[tuple, np.dtype]:
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} is no NumPy file of version 1.0.")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or is_fortran or not shape:
        raise ValueError(
            f"{name} holds {dtype} of shape {shape}; expected images. Objects "
            "are never loaded (allow_pickle=False)."
        )
    return shape, dtype
