"""A model's `.keras` file, checked as a whole."""

import keras

from keras_incremental.files import as_path, checked_archive


def load_model(path, custom_objects=None, compile=True) -> keras.Model:
    """Loads a `.keras` file; whatever is wrong with it, the error names it.

    The model is that of `keras.models.load_model`, which compares what it reads
    with the archive's checksums too, but whose errors do not always name the
    file. Here all of it is checked before any of it is used. `safe_mode` is
    on: no code in the file is executed.

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
        with checked_archive(path) as local:
            return keras.models.load_model(local, custom_objects, compile)
    except Exception as error:  # of many kinds, for damage in many places
        raise ValueError(
            f"The model {str(path)!r} is damaged, or cannot be loaded: {error}"
        ) from error
