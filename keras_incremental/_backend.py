"""Checks, before anything else, that Keras runs on TensorFlow."""

import keras


def check_backend() -> None:
    """Checks Keras' major version and backend.

    Raises:
        ImportError: saying which environment variable, or which command,
            puts it right.
    """
    if not keras.__version__.startswith("3."):
        raise ImportError(
            f"keras_incremental needs Keras 3, found {keras.__version__}. Run "
            "`pip install 'keras>=3.10'`."
        )
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ImportError(
            f"keras_incremental needs Keras on the TensorFlow backend, found "
            f"{backend!r}. Set the environment variable "
            "KERAS_BACKEND=tensorflow before Python starts, or "
            '"backend": "tensorflow" in ~/.keras/keras.json.'
        )
