"""Reading image files: formats, channels, and one size for all."""

import functools

import numpy as np
import tensorflow as tf

SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",  # BMP
)
_LONGEST_SIGNATURE = max(len(signature) for signature in SIGNATURES)


def is_image(path):
    """Tells by its first bytes whether a file is JPEG, PNG, GIF or BMP."""
    with open(path, "rb") as file:
        return file.read(_LONGEST_SIGNATURE).startswith(SIGNATURES)


def as_size(image_size):
    """Returns `(height, width)` in pixels from an int or a pair.

    Raises:
        ValueError: neither an int nor a pair of ints, or less than a pixel.

    Example:

    >>> as_size(32)
    (32, 32)
    """
    sides = np.atleast_1d(image_size)
    is_size = sides.dtype.kind in "iu" and sides.shape in ((1,), (2,))
    if not is_size or sides.min() < 1:
        raise ValueError(
            f"image_size={image_size!r}; expected an int or (height, width) "
            "in pixels, each at least 1."
        )
    height, width = np.broadcast_to(sides, 2).tolist()
    return height, width


@functools.cache
def image_reader(size, channels):
    """Returns a function that reads an image file, traced once per process.

    Args:
        size: `(height, width)` in pixels.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        A `tf.function` from a path, a scalar string, to `(*size, channels)`
        uint8.
    """

    def read(path):
        image = decode_image(tf.io.read_file(path), channels)
        return resize_and_crop(image, size)

    signature = [tf.TensorSpec((), tf.string)]
    return tf.function(read, signature, autograph=False)


def resize_and_crop(image, size):
    """Resizes until `size` is just covered, then crops the centre.

    The aspect ratio is kept; for a square size, the shorter side is resized.
    Bilinear with antialiasing. An image of that size already is unchanged.

    Args:
        image: `(height, width, channels)` tensor of any dtype.
        size: `(height, width)` in pixels.

    Returns:
        `(*size, channels)` tensor of the same dtype.
    """
    unchanged = tf.reduce_all(tf.shape(image)[:2] == size)
    fitted = tf.cond(
        unchanged, lambda: image, lambda: _covering_centre(image, size)
    )
    return tf.ensure_shape(fitted, (*size, image.shape[-1]))


def _covering_centre(image, size):
    now = tf.cast(tf.shape(image)[:2], "float32")
    scale = tf.reduce_max(tf.cast(size, "float32") / now)
    covering = tf.maximum(tf.cast(tf.round(now * scale), "int32"), size)
    resized = tf.image.resize(image, covering, antialias=True)
    top, left = tf.unstack((covering - size) // 2)
    centre = resized[top : top + size[0], left : left + size[1]]
    if image.dtype.is_integer:
        return tf.saturate_cast(tf.round(centre), image.dtype)
    return tf.cast(centre, image.dtype)


def decode_image(data, channels):
    """Decodes one JPEG, PNG, BMP or GIF (its first frame) to uint8.

    TensorFlow decodes JPEG and PNG to any number of channels, but BMP and GIF
    only to those of the file; these are converted here. Transparency is
    dropped. TensorFlow cannot decode a CMYK JPEG to grey.

    Args:
        data: scalar string tensor, the bytes of the file.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        `(height, width, channels)` uint8 tensor.
    """
    first = tf.strings.substr(data, 0, 2)
    image = tf.cond(
        (first == b"BM") | (first == b"GI"),
        lambda: _with_channels(_decode(data, 0), channels),
        lambda: _decode(data, channels),
    )
    return tf.ensure_shape(image, (None, None, channels))


def _decode(data, channels):
    return tf.io.decode_image(data, channels, expand_animations=False)


def _with_channels(image, channels):
    colours = tf.shape(image)[-1]
    rgb = tf.cond(
        colours >= 3,
        lambda: image[..., :3],
        lambda: tf.repeat(image[..., :1], 3, axis=-1),
    )
    rgb = tf.ensure_shape(rgb, (None, None, 3))
    return rgb if channels == 3 else tf.image.rgb_to_grayscale(rgb)
