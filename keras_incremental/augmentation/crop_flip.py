"""The usual augmentation of small images."""

import dataclasses
from typing import ClassVar, NamedTuple

import tensorflow as tf

from keras_incremental.augmentation import windows


class CropFlipDraws(NamedTuple):
    """Random numbers for one batch.

    Attributes:
        offsets: int32 `(batch, 2)`, top and left of the window.
        mirrored: bool `(batch,)`.
    """

    offsets: tf.Tensor
    mirrored: tf.Tensor


@dataclasses.dataclass(frozen=True)
class CropFlip:
    """Zero padding, random crop to the old size, random horizontal mirror.

    He et al. 2016 (arXiv:1512.03385), section 4.2. The window and the mirror
    (with probability 1/2) are drawn for each image and each epoch.

    Args:
        padding: pixels of zeros on each side; 0 for no crop.
        flip: whether to mirror.

    Raises:
        ValueError: if `padding` is not an int of at least 0.

    >>> import numpy as np
    >>> images = np.zeros((16, 32, 32, 3), "uint8")
    >>> CropFlip()(images, seed=(0, 1)).shape
    TensorShape([16, 32, 32, 3])
    """

    copies: ClassVar[int] = 1
    stored: ClassVar[bool] = False

    padding: int = 4
    flip: bool = True

    def __post_init__(self):
        windows.check_padding(self.padding)

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns changed images of the same shape and type.

        Args:
            images: `(batch, h, w, c)`, any number type.
            seed: integers of shape `(2,)`; the same one draws the same.

        Raises:
            ValueError: if `images` is not of rank 4 or `seed` not a pair.
        """
        images = windows.image_batch(images)
        draws = self.draw(seed, tf.shape(images)[0])
        return windows.window(
            images, draws.offsets, draws.mirrored, self.padding
        )

    def draw(
        self, seed: tf.Tensor, batch_size: int | tf.Tensor
    ) -> CropFlipDraws:
        """Returns the `CropFlipDraws` of `batch_size` images."""
        offsets_seed, mirror_seed = tf.unstack(
            tf.random.split(windows.seed_pair(seed), 2)
        )
        offsets = windows.draw_offsets(
            offsets_seed, (batch_size,), self.padding
        )
        if not self.flip:
            return CropFlipDraws(offsets, tf.zeros((batch_size,), tf.bool))
        coin = tf.random.stateless_uniform((batch_size,), mirror_seed)
        return CropFlipDraws(offsets, coin < 0.5)
