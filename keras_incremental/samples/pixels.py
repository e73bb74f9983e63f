"""What the pixels of new images have to share with those before them."""

import dataclasses
import math

import numpy as np

_UNIT_SCALE, _LARGE_SCALE = 1.0, 8.0


@dataclasses.dataclass(frozen=True)
class Pixels:
    """The dtype and the range of images.

    Attributes:
        dtype: `None` where it does not matter.
        low: the least value; NaN where it is not known.
        high: the greatest value; NaN where it is not known.
    """

    dtype: np.dtype | None
    low: float = math.nan
    high: float = math.nan

    def __str__(self):
        return f"{self.dtype or 'images'} from {self.low:g} to {self.high:g}"

    @property
    def scale(self) -> float:
        """The greatest absolute value."""
        return max(abs(self.low), abs(self.high))


class PixelReader:
    """Takes images batch by batch, and makes them like those before them.

    Images of another dtype are converted if no value changes: whole numbers
    of 0 to 255 in float32 become uint8 beside uint8 exemplars, and uint8 images
    become float32 beside float32 ones.

    Args:
        like: the images that the new ones join, or `None`.

    Attributes:
        pixels: of all images so far.

    >>> read = PixelReader(Pixels(np.dtype("uint8"), 0, 255))
    >>> read(np.full((2, 1, 1, 1), 7.0, "float32")).dtype
    dtype('uint8')
    """

    def __init__(self, like: Pixels | None = None):
        self._like = like or Pixels(None)
        self._count = 0
        self.pixels = self._like

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the images, converted where that changes no value.

        Args:
            images: `(samples, ...)`, any number dtype.

        Raises:
            ValueError: for NaN or infinite pixels, or for values that the
                dtype cannot hold.
        """
        _check_finite(images, self._count)
        if len(images):
            low, high = float(images.min()), float(images.max())
            if self._count:
                low = min(low, self.pixels.low)
                high = max(high, self.pixels.high)
            self.pixels = Pixels(images.dtype, low, high)
            self._count += len(images)
        if self._like.dtype in (None, images.dtype):
            return images
        with np.errstate(all="ignore"):
            converted = images.astype(self._like.dtype)
        if np.array_equal(converted, images):
            return converted
        self.check_scale()
        raise ValueError(
            f"The new images are {self.pixels}, with values that "
            f"{self._like.dtype} does not hold; the exemplars are "
            f"{self._like}. Pass raw images of one kind throughout, such as "
            "np.round(images).astype('uint8')."
        )

    def check_scale(self) -> None:
        """Refuses images of 0 to 1 beside images of 0 to 255, or the reverse.

        Raises:
            ValueError: with both ranges.
        """
        scales = self.pixels.scale, self._like.scale
        if 0 < min(scales) <= _UNIT_SCALE and max(scales) > _LARGE_SCALE:
            raise ValueError(
                f"The new images are {self.pixels}, those learned before "
                f"{self._like}: one of the two has been rescaled. Pass raw "
                "images of one scale throughout, and let the model rescale "
                "them."
            )


def _check_finite(images: np.ndarray, first: int) -> None:
    if images.dtype.kind in "iu":
        return
    finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"Image {first + int(np.argmin(finite))} holds NaN or infinite "
            "pixels. Remove such images, or fill them, before fit."
        )
