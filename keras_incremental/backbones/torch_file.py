"""Tensors of a file that an old version of PyTorch saved, without PyTorch.

The format of `torch.save` before version 1.6: five pickled objects one after
the other (a magic number, a version, sizes of C types, the tensors, the keys of
their storages), then the values of each storage behind their number.
"""

import collections
import io
import pickle

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_COUNT = np.dtype("<i8")
_Storage = collections.namedtuple("_Storage", "key dtype size")
_Tensor = collections.namedtuple("_Tensor", "storage offset shape strides")


def _tensor(storage, offset, shape, strides, *_):
    return _Tensor(storage, offset, shape, strides)


_ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
}


class _Unpickler(pickle.Unpickler):
    """Builds records of tensors, and refuses all other classes."""

    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"The file asks for {module}.{name}, which no tensor needs. It "
                "was not made by torch.save for tensors alone: do not use it."
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid):
        _, dtype, key, _, size, _ = pid
        return _Storage(key, dtype, size)


def read_tensors(content: bytes) -> dict[str, np.ndarray]:
    """Returns the tensors of a state dictionary by their names.

    No class of the file is looked up but ordered dictionaries, tensors and
    their storages, and these become records of numbers. No array is larger
    than what there is of the file.

    Args:
        content: of the file.

    Returns:
        Arrays of float32 and int64, in the order of the file.

    Raises:
        pickle.UnpicklingError: if the file asks for anything else.
        ValueError: if it is of another format; other errors are raised for
            damage.
    """
    file = io.BytesIO(content)
    if [_Unpickler(file).load() for _ in range(2)] != [_MAGIC, _VERSION]:
        raise ValueError(
            "The content is not of the format of torch.save before PyTorch 1.6."
        )
    _Unpickler(file).load()  # sizes of C types; those of numbers are fixed
    tensors = _Unpickler(file).load()
    storages = {t.storage.key: t.storage for t in tensors.values()}
    values = {}
    for key in _Unpickler(file).load():
        size = int(np.frombuffer(file.read(_COUNT.itemsize), _COUNT)[0])
        storage, start = storages[key], file.tell()
        if size != storage.size or size < 0:
            raise ValueError(
                f"Storage {key!r} has {size} values, and its tensor asks for "
                f"{storage.size}: the file is damaged."
            )
        values[key] = np.frombuffer(content, storage.dtype, size, start)
        file.seek(start + values[key].nbytes)
    return {
        name: _array(tensor, values[tensor.storage.key])
        for name, tensor in tensors.items()
    }


def _array(tensor, values):
    """NumPy checks that the strides stay within the storage."""
    itemsize = values.itemsize
    return np.ndarray(
        tensor.shape,
        values.dtype,
        values,
        tensor.offset * itemsize,
        [stride * itemsize for stride in tensor.strides],
    )
