"""Exemplars as a storage keeps them, and as training reads them."""

import weakref

import numpy as np
import tensorflow as tf

from keras_incremental.samples import Samples

_AT_ONCE = 64


class ClassExemplars:
    """The exemplars of one class, best first. Never changed: it is replaced.

    Args:
        storage: The `Storage` that keeps them.
        image_spec: Shape and dtype of an image.
        rows: One entry for each image, as the storage made it.
    """

    def __init__(self, storage, image_spec: tf.TensorSpec, rows: np.ndarray):
        self.storage, self.image_spec, self.rows = storage, image_spec, rows

    @classmethod
    def of_rows(cls, storage, image_spec: tf.TensorSpec, rows: list):
        """Makes one of a list of single rows."""
        return cls(storage, image_spec, storage.join(rows, image_spec))

    def __len__(self):
        return len(self.rows)

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each image as it is stored, `(count,)` int64."""
        return self.storage.sizes(self.rows, self.image_spec)

    @property
    def nbytes(self) -> int:
        """Bytes of all of them as they are stored."""
        return int(self.sizes.sum())

    def head(self, count: int) -> "ClassExemplars":
        """Returns the best `count`; what is left out can be freed."""
        if count >= len(self):
            return self
        rows = self.rows[:count].copy()
        return ClassExemplars(self.storage, self.image_spec, rows)

    def decoded(self) -> np.ndarray:
        """Returns the images, `(count, h, w, c)`."""
        return self._samples().take(np.arange(len(self)))

    def dataset(self) -> tf.data.Dataset:
        """Returns the images as a dataset of single ones."""
        return self._samples().images()

    def _samples(self) -> Samples:
        unused = np.zeros(len(self), np.int64)
        return self.storage.samples(self.rows, self.image_spec, unused)

    def moved_to(self, storage) -> "ClassExemplars":
        """Returns the same images in another storage."""
        rows = []
        for start in range(0, len(self), _AT_ONCE):
            part = ClassExemplars(
                self.storage,
                self.image_spec,
                self.rows[start : start + _AT_ONCE],
            )
            rows += storage.encode(part.decoded())
        return ClassExemplars.of_rows(storage, self.image_spec, rows)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns arrays from which `from_arrays` makes the same images."""
        content = b"".join(map(self.storage.to_bytes, self.rows))
        spec = self.image_spec
        return {
            "bytes": np.frombuffer(content, np.uint8),
            "sizes": self.sizes,
            "image": np.zeros((0, *spec.shape), spec.dtype.as_numpy_dtype),
        }

    @classmethod
    def from_arrays(cls, storage, arrays: dict) -> "ClassExemplars":
        """Makes exemplars from what `to_arrays` returned."""
        image = arrays["image"]
        spec = tf.TensorSpec(image.shape[1:], image.dtype)
        ends = np.cumsum(arrays["sizes"])
        parts = np.split(arrays["bytes"], ends)[:-1]
        rows = storage.from_bytes([part.tobytes() for part in parts], spec)
        return cls.of_rows(storage, spec, rows)


class StoredSamples(Samples):
    """Samples that are read and decoded when they are looked up.

    Nothing that is decoded is kept: what a batch takes is freed with it.

    Args:
        storage: The `Storage` that keeps them.
        image_spec: Shape and dtype of an image.
        rows: One entry for each image, as the storage made it.
        labels: `(samples,)`, already checked.
    """

    def __init__(self, storage, image_spec, rows: np.ndarray, labels):
        self._storage, self._rows = storage, rows
        self.image_spec, self.labels = image_spec, labels

    def images(self):
        single = self._batches(np.arange(len(self))).unbatch()
        return single.apply(
            tf.data.experimental.assert_cardinality(len(self))
        ).prefetch(_AT_ONCE)

    def take(self, indices):
        indices = np.asarray(indices, np.int64)
        spec = self.image_spec
        images = np.empty(
            (len(indices), *spec.shape), spec.dtype.as_numpy_dtype
        )
        first = 0
        for batch in self._batches(indices).as_numpy_iterator():
            images[first : first + len(batch)] = batch
            first += len(batch)
        return images

    def look_up(self):
        return lambda epoch, indices: {"images": self._batch(indices)}

    def _batches(self, indices: np.ndarray) -> tf.data.Dataset:
        indices = tf.data.Dataset.from_tensor_slices(indices)
        return indices.batch(_AT_ONCE).map(
            self._batch, num_parallel_calls=tf.data.AUTOTUNE
        )

    def _batch(self, indices) -> tf.Tensor:
        """Returns images `(len(indices), h, w, c)`, in a graph."""
        # TensorFlow keeps what is passed to `numpy_function` till the process
        # ends: it must not be what holds the rows. The dataset does.
        samples = weakref.ref(self)
        rows = tf.numpy_function(
            lambda index: samples()._read(index),
            [indices],
            self._storage.row_dtype(self.image_spec),
            stateful=False,
        )
        return self._storage.decode(rows, self.image_spec)

    def _read(self, indices: np.ndarray) -> np.ndarray:
        return self._storage.read(self._rows[indices], self.image_spec)
