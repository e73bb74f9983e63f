"""Checks, before anything else, that Keras runs on TensorFlow."""

import os

_FIX = (
    "Set the environment variable KERAS_BACKEND=tensorflow before Python "
    'starts, or "backend": "tensorflow" in ~/.keras/keras.json.'
)


def check_backend() -> None:
    """Checks Keras' major version and backend.

    Raises:
        ImportError: saying which environment variable, or which command,
            puts it right.
    """
    _check_name(os.environ.get("KERAS_BACKEND", "tensorflow"))
    try:
        import keras
    except ModuleNotFoundError as error:
        raise ImportError(
            f"keras_incremental could not import Keras: {error}. If Keras is "
            f"installed, its backend is not. {_FIX}"
        ) from error
    if not keras.__version__.startswith("3."):
        raise ImportError(
            f"keras_incremental needs Keras 3, found {keras.__version__}. Run "
            "`pip install 'keras>=3.15'`."
        )
    _check_name(keras.backend.backend())


def _check_name(backend: str) -> None:
    if backend != "tensorflow":
        raise ImportError(
            "keras_incremental needs Keras on the TensorFlow backend, found "
            f"{backend!r}. {_FIX}"
        )
