"""Files that anyone may have written, read with what they say checked first.

What a file says of itself, a count or a shape, is compared with the size of
the file before memory is taken for it.
"""

import contextlib
import json
import math
import zipfile

import h5py
import numpy as np
import tensorflow as tf

_ROOM = 2**26  # bytes of variables that are in no file: metrics, counters


def parsed(text: str | bytes):
    """Returns what a JSON text holds.

    Raises:
        ValueError: If it is not JSON, is nested too deeply to be read, or has
            a key twice.

    >>> parsed('{"seed": 0}')
    {'seed': 0}
    """
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except RecursionError as error:
        raise ValueError("it is nested too deeply.") from error


def _without_duplicates(pairs) -> dict:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"one of the keys {[*content][:10]} is there twice.")
    return content


def check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Refuses an archive that is not made as ours are: nothing compressed.

    Args:
        archive: Open for reading.
        size: Bytes of the whole archive.

    Raises:
        ValueError: If an entry is compressed or is there twice, or if the
            entries are larger together than the archive.
    """
    members = archive.infolist()
    for member in members:
        stored = member.compress_type == zipfile.ZIP_STORED
        if not stored or member.file_size != member.compress_size:
            raise ValueError(f"its entry {member.filename!r} is compressed.")
    names = {member.filename for member in members}
    if len(names) < len(members):
        raise ValueError(f"one of its entries {[*names][:10]} is there twice.")
    if sum(member.file_size for member in members) > size:
        raise ValueError(f"its entries say more than its {size} bytes.")


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Reads an entry in NumPy's format, of `check_members`'s archive.

    Raises:
        ValueError: If its header does not fit its size, or is of objects, of
            records, or of another byte order than this machine's.
    """
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):  # only records need a longer header
            raise ValueError(f"its entry {name!r} is of the format {version}.")
        shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
        size = archive.getinfo(name).file_size - file.tell()
        _check_header(name, shape, dtype, size)
        values = np.frombuffer(file.read(), dtype)
    return values.reshape(shape, order="F" if in_columns else "C")


def _check_header(name: str, shape, dtype: np.dtype, size: int) -> None:
    if dtype.hasobject:
        raise ValueError(
            f"its entry {name!r} holds objects, which only allow_pickle=True "
            "would read; nothing is unpickled."
        )
    plain = dtype.names is None and dtype.subdtype is None and dtype.itemsize
    if not plain or not dtype.isnative:
        raise ValueError(
            f"its entry {name!r} is of {dtype.str}; expected numbers in the "
            "byte order of this machine."
        )
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(
            f"its entry {name!r} says that it holds {shape} of {dtype.name}, "
            f"and has {size} bytes."
        )


def check_datasets(file, size: int) -> None:
    """Refuses weights in HDF5 that are not made as Keras makes them.

    Args:
        file: Open for reading, seekable.
        size: Its bytes.

    Raises:
        ValueError: If a dataset does not have its bytes in this file, as they
            are, or if all are larger together than the file.
    """
    sizes = []

    def check(_, item):
        if isinstance(item, h5py.Group):
            return
        declared = math.prod(item.shape or ()) * item.dtype.itemsize
        sizes.append(declared)
        elsewhere = item.external or item.is_virtual
        if elsewhere or item.id.get_storage_size() != declared:
            raise ValueError(
                f"its weights {item.name!r} say that they have {declared} "
                "bytes, and are compressed, elsewhere or not there."
            )

    with h5py.File(file, "r") as content:
        content.visititems(check)
    if sum(sizes) > size:
        raise ValueError(f"its weights say {sum(sizes)} bytes, in {size}.")


@contextlib.contextmanager
def variables_within(size: int):
    """Refuses variables that a file of this size cannot hold the values of.

    Each is refused before memory is taken for it, so that a number of units
    in a file costs no more than the weights that are there.

    Args:
        size: Bytes of the weights, of which variables may have four times as
            many, and 64 MB.

    Raises:
        ValueError: With the sizes.
    """
    left = limit = 4 * size + _ROOM

    def create(next_creator, **options):
        nonlocal left
        left -= _nbytes(options["initial_value"])
        if left < 0:
            raise ValueError(
                f"its model has variables of more than {limit} bytes, for "
                f"weights of {size} bytes."
            )
        return next_creator(**options)

    with tf.variable_creator_scope(create):
        yield


def _nbytes(value) -> int:
    """Returns the bytes of a variable's first value, which may be to be made.

    It is traced, which takes no memory for it.
    """
    if callable(value):
        traced = tf.function(value, autograph=False).get_concrete_function()
        value = traced.structured_outputs
    tensor = value if hasattr(value, "dtype") else np.asarray(value)
    return math.prod(tensor.shape) * tf.as_dtype(tensor.dtype).size
