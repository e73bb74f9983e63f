"""A model's `.keras` file, checked as a whole."""

import zipfile

import keras

from keras_incremental._types import PathLike
from keras_incremental.archives import (
    check_datasets,
    check_members,
    parsed,
    variables_within,
)
from keras_incremental.files import as_path, checked_archive

__all__ = ["load_model"]

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"


def load_model(
    path: PathLike,
    custom_objects: dict | None = None,
    compile: bool = True,
) -> keras.Model:
    """Loads a `.keras` file; whatever is wrong with it, the error names it.

    The model is that of `keras.models.load_model`, which compares what it reads
    with the archive's checksums too, but whose errors do not always name the
    file. Here all of it is checked before any of it is used, and memory is
    taken for no more than its size allows. `safe_mode` is on: no code in the
    file is executed.

    Args:
        path: `str` or path-like with the suffix `.keras`, local or one that
            `keras_incremental.files` opens, such as `gs://bucket/m.keras`.
        custom_objects: As for `keras.models.load_model`.
        compile: Whether to compile the model as it was.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or does not hold a model that can
            be loaded; it is named.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/model.keras"
    >>> layers = [keras.Input((2,)), keras.layers.Dense(3)]
    >>> keras.Sequential(layers).save(path)
    >>> load_model(path).output_shape
    (None, 3)
    """
    path = as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no model {str(path)!r}.")
    try:
        with (
            checked_archive(path) as local,
            variables_within(_checked_bytes_of_weights(local)),
        ):
            return keras.models.load_model(local, custom_objects, compile)
    except Exception as error:  # of many kinds, for damage in many places
        raise ValueError(
            f"The model {str(path)!r} is damaged, or cannot be loaded: {error}"
        ) from error


def _checked_bytes_of_weights(path) -> int:
    """Returns how many bytes the weights in a `.keras` file have.

    Raises:
        ValueError: If the file says that it holds more than it has room for.
    """
    with zipfile.ZipFile(path) as archive:
        check_members(archive, path.stat().st_size)
        parsed(archive.read(_CONFIG))
        size = archive.getinfo(_WEIGHTS).file_size
        with archive.open(_WEIGHTS) as weights:
            check_datasets(weights, size)
    return size
