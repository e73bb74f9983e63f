"""A checksum of a model's weights, saved and loaded with them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np


class WeightsChecksum(keras.layers.Layer):
    """Refuses weights that are not those that were saved.

    A `.keras` file is a zip archive, whose checksums Keras does not always
    look at. This layer has no weights: Keras saves and loads it with the model
    that has it as a private attribute, and visits those last, after all
    weights. A file without a checksum, of an older version, is loaded as is.

    Args:
        parts: returns the variables by part of the model. A part that is in
            the model alone, or in the file alone, is not compared.

    >>> weights = keras.Variable([1.0, 2.0])
    >>> checksum, store = WeightsChecksum(lambda: {"model": [weights]}), {}
    >>> checksum.save_own_variables(store)
    >>> checksum.load_own_variables(store)
    >>> _ = weights.assign([1.0, 3.0])
    >>> checksum.load_own_variables(store)
    Traceback (most recent call last):
    ...
    ValueError: The file is damaged: the weights of 'model' are not those...
    """

    def __init__(self, parts: Callable[[], Mapping[str, Sequence]]):
        super().__init__(name="weights_checksum")
        self._parts = parts
        self.built = True

    def save_own_variables(self, store) -> None:
        """Writes a SHA-256, as 32 bytes, for each part."""
        for part, variables in self._parts().items():
            store[part] = _sha256(variables)

    def load_own_variables(self, store) -> None:
        """Compares the variables with the checksums.

        Raises:
            ValueError: if they differ; the part is named.
        """
        for part, variables in self._parts().items():
            if part in store and not np.array_equal(
                store[part], _sha256(variables)
            ):
                raise ValueError(
                    f"The file is damaged: the weights of {part!r} are not "
                    "those that were saved. Load another copy of the file."
                )


def _sha256(variables: Sequence) -> np.ndarray:
    digest = hashlib.sha256()
    for variable in variables:
        array = keras.ops.convert_to_numpy(variable)
        digest.update(f"{array.dtype.name} {array.shape}".encode())
        digest.update(array.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
