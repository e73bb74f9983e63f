"""Images held in memory."""

import numpy as np
import tensorflow as tf

# A gather of many images costs little more than a gather of one.
_GATHERED_TOGETHER = 64


class ArrayImages:
    """Images and labels of one split, held once and picked by index.

    The arrays are copied to host memory as they are, so a later change of
    the caller's arrays does not change the scenario. Tasks share them.

    Args:
        images: `(images, ...)` array of any numeric dtype.
        labels: `(images,)` int64 or text.
    """

    def __init__(self, images, labels):
        self.labels = labels
        with tf.device("CPU:0"):
            self._columns = tf.constant(images), tf.constant(labels)
        self.image_shape = images.shape[1:]
        self.dtype = self._columns[0].dtype

    def dataset(self, indices):
        """Returns the unbatched `(image, label)` pairs of `indices`."""
        chosen = tf.data.Dataset.from_tensor_slices(np.asarray(indices))
        gathered = chosen.batch(_GATHERED_TOGETHER).map(
            lambda rows: tuple(tf.gather(part, rows) for part in self._columns)
        )
        return gathered.unbatch().apply(
            tf.data.experimental.assert_cardinality(len(indices))
        )


def as_images(values, labels, name):
    """Returns images as an array, one for each label.

    Args:
        values: `(images, ...)` numeric array, never converted.
        labels: `(images,)` labels of the images.
        name: how the caller calls the images, for messages.

    Raises:
        TypeError: the images are not numbers.
        ValueError: other than one image a label, or not of one shape.
    """
    images = np.asarray(values)
    if images.dtype.kind not in "iufb" and images.dtype.name != "bfloat16":
        raise TypeError(
            f"{name} has dtype {images.dtype}; expected numbers, for example "
            "uint8 or float32, of shape (images, height, width, channels)."
        )
    if images.ndim < 2:
        raise ValueError(
            f"{name} has shape {images.shape}; expected "
            "(images, height, width, channels)."
        )
    if len(images) != len(labels):
        raise ValueError(
            f"{name} has {len(images)} images but {len(labels)} labels; "
            "expected one label an image."
        )
    return images


def check_same_kind(train, test):
    """Raises unless training and test images have one shape and dtype.

    Args:
        train: training images, an array.
        test: test images, an array.
    """
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        raise ValueError(
            f"Training images are {train.shape[1:]} {train.dtype} but test "
            f"images are {test.shape[1:]} {test.dtype}; expected the same "
            "shape and dtype. Convert one of them."
        )
