"""Reading image files: formats, channels, and one size for all."""

import functools
import os

import numpy as np
import tensorflow as tf

from keras_incremental.scenarios import image_headers

_LONGEST_SIGNATURE = max(map(len, image_headers.SIGNATURES))


def is_image(path):
    """Tells by its first bytes whether a file is one that can be decoded."""
    with open(path, "rb") as file:
        start = file.read(_LONGEST_SIGNATURE)
    return start.startswith(image_headers.SIGNATURES)


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
    return tuple(np.broadcast_to(sides, 2).tolist())


@functools.cache
def image_reader(size, channels):
    """Returns a function that reads an image file, traced once per process.

    Args:
        size: `(height, width)` in pixels.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        A function from a path, bytes or text, to `(*size, channels)` uint8. It
        raises a `ValueError` that names what cannot be decoded.
    """

    decoded = image_decoder(size, channels)

    def read_or_name(path):
        try:
            return decoded(tf.io.read_file(path)).numpy()
        except tf.errors.OpError as error:
            raise ValueError(
                f"{os.fsdecode(path)!r} cannot be read as an image: "
                f"{_reason(error)}. Remove or convert it; in a folder, "
                'from_directory(..., on_error="skip") leaves such files out.'
            ) from error

    return read_or_name


@functools.cache
def image_decoder(size, channels):
    """Returns a function that decodes an image file, traced once per process.

    Args:
        size: `(height, width)` in pixels.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        A `tf.function` from the bytes of a file, a scalar string tensor, to
        `(*size, channels)` uint8; other functions may call and save it.
    """

    def decoded(data):
        return resize_and_crop(decode_image(data, channels), size)

    signature = [tf.TensorSpec((), tf.string)]
    return tf.function(decoded, signature, autograph=False)


def _reason(error):
    """Returns what an operation says, without where it was defined."""
    return error.message.split("\n\n")[-1].split("\n\t")[0]


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
    few = tf.debugging.assert_less_equal(
        tf.reduce_prod(tf.cast(covering, "int64")),
        tf.constant(image_headers.MOST_PIXELS, "int64"),
        "the image is too long, or too wide, to be resized",
    )
    with tf.control_dependencies([few]):
        covering = tf.identity(covering)
    resized = tf.image.resize(image, covering, antialias=True)
    top, left = tf.unstack((covering - size) // 2)
    centre = resized[top : top + size[0], left : left + size[1]]
    if image.dtype.is_integer:
        return tf.saturate_cast(tf.round(centre), image.dtype)
    return tf.cast(centre, image.dtype)


def decode_image(data, channels):
    """Decodes one JPEG, PNG, BMP, WebP or GIF (its first frame) to uint8.

    The image is turned as its EXIF orientation says. Colours of a palette are
    those of the palette; transparency is dropped.

    TensorFlow decodes JPEG and PNG to any number of channels, but the others
    only to those of the file; these are converted here. TensorFlow cannot
    decode a CMYK JPEG to grey.

    Args:
        data: scalar string tensor, the bytes of the file.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        `(height, width, channels)` uint8 tensor.

    Raises:
        tf.errors.InvalidArgumentError: for another format, damage, or more
            than `image_headers.MOST_PIXELS`, when it runs.
    """
    header, kind = image_headers.Header(data), image_headers.kind_of(data)
    few = tf.debugging.assert_less_equal(
        image_headers.pixels(header, kind, data),
        tf.constant(image_headers.MOST_PIXELS, "int64"),
        "the image has too many pixels",
    )
    with tf.control_dependencies([few]):
        data = tf.identity(data)

    def plain():
        return _decode(data, channels)

    def gif():
        opaque = image_headers.without_transparency(header, data)
        return _with_channels(_decode(opaque, 0), channels)

    def bmp():
        image = image_headers.bmp_colours(header, _decode(data, 0))
        return _with_channels(image, channels)

    def webp():
        return _with_channels(_decode(data, 0), channels)

    image = tf.switch_case(kind, [plain, plain, gif, bmp, webp])
    image = image_headers.upright(
        image, image_headers.orientation(header, kind)
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
