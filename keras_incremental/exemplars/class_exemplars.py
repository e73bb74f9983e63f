"""Exemplars as a storage keeps them, and as training reads them."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_incremental.samples import Samples


class ClassExemplars:
    """The exemplars of one class, best first. Never changed: it is replaced.

    Args:
        storage: The `Storage` that keeps them.
        image_spec: Shape and dtype of an image.
        rows: One entry for each image, as the storage encoded it.
    """

    def __init__(
        self, storage: Any, image_spec: tf.TensorSpec, rows: np.ndarray
    ):
        self.storage, self.image_spec, self.rows = storage, image_spec, rows

    def __len__(self):
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of all of them as they are stored."""
        return self.storage.nbytes(self.rows, self.image_spec)

    def head(self, count: int) -> "ClassExemplars":
        """Returns the best `count`; what is left out can be freed."""
        if count >= len(self):
            return self
        rows = self.rows[:count].copy()
        return ClassExemplars(self.storage, self.image_spec, rows)

    def decoded(self) -> np.ndarray:
        """Returns the images, `(count, h, w, c)`."""
        return self.storage.decode(self.rows, self.image_spec)

    def samples(self) -> Samples:
        """Returns the images as samples, all with the label 0."""
        labels = np.zeros(len(self), np.int64)
        return self.storage.samples(self.rows, self.image_spec, labels)

    def moved_to(self, storage: Any) -> "ClassExemplars":
        """Returns the same images in another storage."""
        rows = storage.encode(self.decoded())
        return ClassExemplars(storage, self.image_spec, rows)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns arrays from which `from_arrays` makes the same images."""
        return self.storage.to_arrays(self.rows, self.image_spec)

    @classmethod
    def from_arrays(cls, storage: Any, arrays: dict) -> "ClassExemplars":
        """Makes exemplars from what `to_arrays` returned."""
        images = arrays["images"]
        spec = tf.TensorSpec(images.shape[1:], images.dtype)
        return cls(storage, spec, storage.from_arrays(arrays))


class StoredSamples(Samples):
    """Samples that are read and decoded when they are looked up.

    Nothing that is decoded is kept: what a batch takes is freed with it.

    Args:
        storage: The `Storage` that keeps them.
        image_spec: Shape and dtype of an image.
        rows: One entry for each image, as the storage encoded it.
        labels: `(samples,)`, already checked.
    """

    def __init__(self, storage, image_spec, rows: np.ndarray, labels):
        self._storage, self._rows = storage, rows
        self.image_spec, self.labels = image_spec, labels

    def take(self, indices):
        rows = self._rows[np.asarray(indices, int)]
        return self._storage.decode(rows, self.image_spec)
