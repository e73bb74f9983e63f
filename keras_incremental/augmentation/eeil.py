"""The twelve variants of each image in EEIL, drawn on line or all stored."""

import dataclasses
from typing import ClassVar, NamedTuple

import tensorflow as tf

from keras_incremental.augmentation import windows

_ORIGINAL, _BRIGHTNESS, _CONTRAST = range(3)
_COLOURS = 3
_UNMIRRORED = 2 * _COLOURS  # Each colour whole and cropped.
_VARIANTS = 2 * _UNMIRRORED


class EEILDraws(NamedTuple):
    """Random numbers for one batch, one of each for each image made.

    Attributes:
        variant: int32 `(count,)`, which of the twelve.
        brightness: float32 `(count,)`, added to every pixel, in pixel units.
        contrast: float32 `(count,)`, factor on the distance from the mean.
        offsets: int32 `(count, 2)`, top and left of the window of a crop.
    """

    variant: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    offsets: tf.Tensor


@dataclasses.dataclass(frozen=True)
class EEILVariants:
    """What they have in common: ranges, their checks, and how they are used."""

    copies: ClassVar[int] = 1
    stored: ClassVar[bool] = False

    brightness: float = 63
    contrast: tuple[float, float] = (0.2, 1.8)
    padding: int = 4
    value_range: tuple[float, float] = (0, 255)

    def __post_init__(self):
        windows.check_padding(self.padding)
        low, high = self.contrast
        darkest, brightest = self.value_range
        if self.brightness < 0 or not 0 <= low <= high or darkest >= brightest:
            raise ValueError(
                f"{self}; expected brightness >= 0, in units of 0..255, "
                "contrast=(low, high) with 0 <= low <= high, and "
                "value_range=(lowest, highest)."
            )

    def __call__(self, images, seed):
        """Returns changed images of the same type, `copies` for each one.

        Args:
            images: `(batch, h, w, c)`, any number type.
            seed: integers of shape `(2,)`; the same one draws the same.

        Returns:
            `(batch * copies, h, w, c)`, those of one image adjacent.

        Raises:
            ValueError: if `images` is not of rank 4 or cannot hold
                `value_range`, or `seed` is not a pair.
        """
        images = windows.image_batch(images)
        self._check_type_holds_range(images.dtype)
        batch_size = tf.shape(images)[0]
        draws = self.draw(seed, batch_size)
        if self.copies > 1:
            # A gather takes every number type, tf.repeat on images does not.
            copied = tf.repeat(tf.range(batch_size), self.copies)
            images = tf.gather(images, copied)
        return self._changed(images, draws)

    def _changed(self, images, draws):
        """Returns images of the variants that are drawn."""
        images = self._recolour(images, draws)
        cropped = draws.variant % _UNMIRRORED >= _COLOURS
        return windows.window(
            images,
            tf.where(cropped[:, None], draws.offsets, self.padding),
            draws.variant >= _UNMIRRORED,
            self.padding,
        )

    def _check_type_holds_range(self, dtype):
        darkest, brightest = self.value_range
        fits = dtype.min <= darkest and brightest <= dtype.max
        if not (dtype.is_floating or fits):
            raise ValueError(
                f"value_range={self.value_range} does not fit into images of "
                f"type {dtype.name}, which holds {dtype.min} to {dtype.max}. "
                "Pass the range of the pixels, or cast the images."
            )

    def _clip(self, pixels):
        return tf.clip_by_value(pixels, *map(float, self.value_range))

    def _draw_colours(self, brightness_seed, contrast_seed, batch_size):
        darkest, brightest = self.value_range
        largest = self.brightness * (brightest - darkest) / 255
        low, high = self.contrast
        shape = (batch_size,)
        unit = tf.random.stateless_uniform(shape, brightness_seed)
        brightness = largest * (2 * unit - 1)
        unit = tf.random.stateless_uniform(shape, contrast_seed)
        return brightness, low + (high - low) * unit

    def _recolour(self, images, draws):
        """Changes brightness or contrast; an original stays as it is."""
        pixels = tf.cast(images, tf.float32)
        mean = tf.reduce_mean(pixels, axis=(1, 2), keepdims=True)
        colour = windows.per_image(draws.variant % _COLOURS)
        brightness = windows.per_image(draws.brightness)
        contrast = windows.per_image(draws.contrast)
        shift = tf.where(colour == _BRIGHTNESS, brightness, 0.0)
        factor = tf.where(colour == _CONTRAST, contrast, 1.0)
        centre = tf.where(colour == _CONTRAST, mean, 0.0)
        pixels = centre + factor * (pixels - centre) + shift
        pixels = self._clip(pixels)
        if not images.dtype.is_floating:
            pixels = tf.round(pixels)
        return tf.where(
            colour == _ORIGINAL, images, tf.cast(pixels, images.dtype)
        )


@dataclasses.dataclass(frozen=True)
class EEILAugmentation(EEILVariants):
    """One of the twelve EEIL variants of each image, drawn on line.

    Castro et al. 2018 (arXiv:1807.09536), data augmentation, drawn anew in
    each epoch where the paper stores all twelve (`StoredEEILAugmentation`):

        variant 0  the image x
        variant 1  x + b,              b ~ U(-brightness, brightness)
        variant 2  m + a * (x - m),    a ~ U(contrast), m = each channel's mean
        variants 3 to 5   a random crop of variants 0 to 2, zero padded
        variants 6 to 11  the mirror image of variants 0 to 5

    1 and 2 are clipped to `value_range`, and rounded in integer images; they
    are computed in float32. Each variant has the probability 1/12.

    Args:
        brightness: largest change, in units of 0..255: for another
            `value_range` it is scaled by its length / 255.
        contrast: smallest and largest factor.
        padding: pixels of zeros on each side before the crop.
        value_range: lowest and highest pixel value of the images.

    Raises:
        ValueError: if `padding` is not an int, or it or `brightness` is
            negative, or a range is reversed.

    >>> import numpy as np
    >>> images = np.zeros((16, 32, 32, 3), "uint8")
    >>> EEILAugmentation()(images, seed=(0, 1)).shape
    TensorShape([16, 32, 32, 3])
    """

    def draw(self, seed: tf.Tensor, batch_size: int | tf.Tensor) -> EEILDraws:
        """Returns the `EEILDraws` of `batch_size` images, one for each."""
        seeds = tf.unstack(tf.random.split(windows.seed_pair(seed), 4))
        brightness, contrast = self._draw_colours(*seeds[:2], batch_size)
        offsets = windows.draw_offsets(seeds[2], (batch_size,), self.padding)
        variant = tf.random.stateless_uniform(
            (batch_size,), seeds[3], 0, _VARIANTS, dtype=tf.int32
        )
        return EEILDraws(variant, brightness, contrast, offsets)


@dataclasses.dataclass(frozen=True)
class StoredEEILAugmentation(EEILVariants):
    """All twelve EEIL variants of each image, made once per stage and kept.

    Castro et al. 2018 (arXiv:1807.09536), data augmentation. Image `i` becomes
    the images `12 * i` to `12 * i + 11`, in the order of the variants of
    `EEILAugmentation`, whose formulas and arguments are the same. Variants 4
    and 5 are crops of the very images 1 and 2, at a place of their own each;
    6 to 11 are the mirror images of the very images 0 to 5. One epoch over the
    result is twelve passes over the images, as in the authors' code.

    Args:
        brightness: largest change, in units of 0..255: for another
            `value_range` it is scaled by its length / 255.
        contrast: smallest and largest factor.
        padding: pixels of zeros on each side before the crop.
        value_range: lowest and highest pixel value of the images.

    Raises:
        ValueError: if `padding` is not an int, or it or `brightness` is
            negative, or a range is reversed.

    >>> import numpy as np
    >>> images = np.zeros((16, 32, 32, 3), "uint8")
    >>> StoredEEILAugmentation()(images, seed=(0, 1)).shape
    TensorShape([192, 32, 32, 3])
    """

    copies: ClassVar[int] = _VARIANTS
    stored: ClassVar[bool] = True

    def draw(self, seed: tf.Tensor, batch_size: int | tf.Tensor) -> EEILDraws:
        """Returns the `EEILDraws` of `batch_size` images, twelve for each.

        One brightness and one contrast an image, one window for each of its
        three crops.
        """
        seeds = tf.unstack(tf.random.split(windows.seed_pair(seed), 3))
        brightness, contrast = self._draw_colours(*seeds[:2], batch_size)
        offsets = windows.draw_offsets(
            seeds[2], (batch_size, _COLOURS), self.padding
        )
        offsets = tf.tile(offsets, [1, _VARIANTS // _COLOURS, 1])
        return EEILDraws(
            tf.tile(tf.range(_VARIANTS), [batch_size]),
            tf.repeat(brightness, _VARIANTS),
            tf.repeat(contrast, _VARIANTS),
            tf.reshape(offsets, [-1, 2]),
        )
