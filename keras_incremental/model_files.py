"""A model's `.keras` file: written as a whole, checked as a whole."""

import contextlib
import os
import pathlib
import tempfile
import zipfile

import keras

from keras_incremental.files import RemotePath, as_path, sync


def save_model(model: keras.Model, path) -> None:
    """Saves a `.keras` file under a temporary name, then renames it.

    Args:
        model: any Keras model.
        path: `str` or path-like with the suffix `.keras`, local or one that
            `tf.io.gfile` opens; `keras_incremental.files.RemotePath` says what
            a rename is there.

    Raises:
        OSError: if the file cannot be written; an older one is then whole.
    """
    path = as_path(path)
    if isinstance(path, RemotePath):
        with tempfile.TemporaryDirectory() as folder:
            local = pathlib.Path(folder, path.name)
            model.save(local)
            path.copy_from(local)
        return
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.keras")
    try:
        model.save(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def load_model(path, custom_objects=None, compile=True) -> keras.Model:
    """Loads a `.keras` file; whatever is wrong with it, the error names it.

    The model is that of `keras.models.load_model`, whose own errors do not
    always say which file is damaged. All of the file is checked before any of
    it is used, and `safe_mode` is on: nothing in it is executed.

    Args:
        path: `str` or path-like with the suffix `.keras`, local or one that
            `tf.io.gfile` opens.
        custom_objects: as of `keras.models.load_model`.
        compile: whether to compile the model as it was.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or not of a model that can be
            loaded; it is named.

    >>> path = pathlib.Path(tempfile.mkdtemp(), "model.keras")
    >>> layers = [keras.Input((2,)), keras.layers.Dense(3)]
    >>> save_model(keras.Sequential(layers), path)
    >>> load_model(path).output_shape
    (None, 3)
    """
    path = as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no model {str(path)!r}.")
    with _local_copy(path) as local:
        _check_archive(local, path)
        try:
            return keras.models.load_model(local, custom_objects, compile)
        except Exception as error:
            raise ValueError(
                f"The model {str(path)!r} cannot be loaded: {error}"
            ) from error


@contextlib.contextmanager
def _local_copy(path):
    """Yields a local path of the same content, the path itself if it is."""
    if not isinstance(path, RemotePath):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        local = pathlib.Path(folder, path.name)
        path.copy_to(local)
        yield local


def _check_archive(local: pathlib.Path, path) -> None:
    """Compares all that an archive holds with its checksums."""
    try:
        with zipfile.ZipFile(local) as archive:
            damaged = archive.testzip()
    except Exception as error:  # of many kinds, for damage in many places
        raise ValueError(
            f"The model {str(path)!r} is damaged, or no .keras file: {error}. "
            "Load another copy of it."
        ) from error
    if damaged is not None:
        raise ValueError(
            f"The model {str(path)!r} is damaged: {damaged!r} in it is not "
            "what was saved. Load another copy of it."
        )
