"""Checks, before anything else, that Keras runs on TensorFlow."""

import os

_FIX = (
    "Set the environment variable KERAS_BACKEND=tensorflow before Python "
    'starts, or "backend": "tensorflow" in ~/.keras/keras.json.'
)


def check_backend() -> None:
    """Checks Keras' backend: first the variable, then what Keras has found.

    Raises:
        ImportError: saying which environment variable puts it right.
    """
    _check_name(os.environ.get("KERAS_BACKEND", "tensorflow"))
    try:
        import keras
    except ModuleNotFoundError as error:
        raise ImportError(
            f"keras_incremental could not import Keras: {error}. {_FIX}"
        ) from error
    _check_name(keras.backend.backend())


def _check_name(backend: str) -> None:
    if backend != "tensorflow":
        raise ImportError(
            "keras_incremental needs Keras on the TensorFlow backend, found "
            f"{backend!r}. {_FIX}"
        )
