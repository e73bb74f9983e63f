"""The augmentation of EEIL's authors for ImageNet."""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from keras_incremental.augmentation import windows
from keras_incremental.augmentation.eeil import EEILVariants


class ImageNetDraws(NamedTuple):
    """Random numbers for one batch.

    Attributes:
        mirrored, cropped: bool `(batch,)`.
        brightness: float32 `(batch,)`, in pixel units; 0 for none.
        contrast: float32 `(batch,)`; 1 for none.
        offsets: int32 `(batch, 2)`, top and left of the window of a crop.
    """

    mirrored: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    cropped: tf.Tensor
    offsets: tf.Tensor


@dataclasses.dataclass(frozen=True)
class ImageNetEEILAugmentation(EEILVariants):
    """Mirror, brightness, contrast and crop, each with the probability 1/2.

    Castro et al. 2018 (arXiv:1807.09536), the authors' code for ImageNet
    (`incremental_training_imagenet.m`): in this order, each drawn for itself,

        mirror
        x + b,              b ~ U(-brightness, brightness)
        m + a * (x - m),    a ~ U(contrast), m = each channel's mean
        a window of the image's size out of the image enlarged by 2 * padding

    Brightness and contrast are clipped to `value_range`. The authors keep
    images of 256 pixels, and shrink to 224 what is not cropped; here images
    have one size, and a crop is enlarged. They make, once for a stage, one
    image and one mirror of each, so that one epoch is two of these; here all
    is drawn on line.

    Args:
        brightness: largest change, in units of 0..255: for another
            `value_range` it is scaled by its length / 255.
        contrast: smallest and largest factor.
        padding: pixels, half of what the image is enlarged by: 16 for windows
            of 224 out of 256.
        value_range: lowest and highest pixel value of the images.

    Raises:
        ValueError: if `padding` is not an int, or it or `brightness` is
            negative, or a range is reversed.

    >>> import numpy as np
    >>> images = np.zeros((2, 224, 224, 3), "uint8")
    >>> ImageNetEEILAugmentation()(images, seed=(0, 1)).shape
    TensorShape([2, 224, 224, 3])
    """

    padding: int = 16

    def draw(
        self, seed: tf.Tensor, batch_size: int | tf.Tensor
    ) -> ImageNetDraws:
        """Returns the `ImageNetDraws` of `batch_size` images."""
        seeds = tf.unstack(tf.random.split(windows.seed_pair(seed), 4))
        coins = tf.random.stateless_uniform((4, batch_size), seeds[0]) < 0.5
        brightness, contrast = self._draw_colours(*seeds[1:3], batch_size)
        return ImageNetDraws(
            coins[0],
            tf.where(coins[1], brightness, 0.0),
            tf.where(coins[2], contrast, 1.0),
            coins[3],
            windows.draw_offsets(seeds[3], (batch_size,), self.padding),
        )

    def _changed(self, images, draws):
        pixels = tf.cast(images, tf.float32)
        shift = windows.per_image(draws.brightness)
        factor = windows.per_image(draws.contrast)
        pixels = tf.where(shift == 0, pixels, self._clip(pixels + shift))
        mean = tf.reduce_mean(pixels, axis=(1, 2), keepdims=True)
        flatter = self._clip(mean + factor * (pixels - mean))
        pixels = tf.where(factor == 1, pixels, flatter)
        count, *size = tf.unstack(tf.shape(images)[:3])
        pixels = tf.image.crop_and_resize(
            pixels, self._boxes(draws, size), tf.range(count), size
        )
        if not images.dtype.is_floating:
            pixels = tf.round(pixels)
        return tf.ensure_shape(tf.cast(pixels, images.dtype), images.shape)

    def _boxes(self, draws, size):
        """Returns the windows `(batch, 4)`: top, left, bottom, right in 0..1.

        A mirrored one has its left and right side exchanged.
        """
        length = tf.cast(size, tf.float32) - 1
        last = length + 2 * self.padding
        start = tf.cast(draws.offsets, tf.float32) / last
        stop = start + length / last
        start = tf.where(draws.cropped[:, None], start, 0.0)
        stop = tf.where(draws.cropped[:, None], stop, 1.0)
        sides = tf.concat([start, stop], axis=1)
        mirrored = tf.gather(sides, [0, 3, 2, 1], axis=1)
        return tf.where(draws.mirrored[:, None], mirrored, sides)
