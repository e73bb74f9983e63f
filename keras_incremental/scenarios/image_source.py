"""What a scenario asks of the images of a split."""

from typing import Protocol

import numpy as np
import tensorflow as tf


class ImageSource(Protocol):
    """Labelled images that can be picked by index.

    Attributes:
        labels: `(images,)` int64 or text, one label an image.
        image_shape: static shape of one image.
        dtype: dtype of the images, a `tf.DType`.
    """

    labels: np.ndarray
    image_shape: tuple
    dtype: tf.DType

    def dataset(self, indices):
        """Returns the unbatched `(image, label)` pairs of `indices`.

        Args:
            indices: ascending int64 array, not empty.

        Returns:
            A `tf.data.Dataset` with `len(indices)` known elements.
        """
