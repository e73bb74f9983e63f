"""What an image file says before it is decoded, read in a graph.

A header that makes no sense gives values that do no harm: an image then is
upright, and decoding says what is wrong with it.
"""

import numpy as np
import tensorflow as tf

SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"BM",  # BMP
    b"RIFF",  # WebP
)
# As many as 256 bytes squared: 805 MB, as RGB.
MOST_PIXELS = 2**28
_MOST_PARTS = 4096  # that are looked through, in one file
_ROOM = 64  # bytes behind a file, so that all of it can be read as numbers
_ORIENTATION = 0x0112  # EXIF 2.3, table 4


class Header:
    """The bytes of an image file.

    Args:
        data: scalar string tensor.
    """

    def __init__(self, data):
        values = tf.io.decode_raw(data, tf.uint8)
        self.size = tf.size(values, tf.int64)
        self.values = tf.pad(values, [[0, _ROOM]])

    def number(self, at, size, little=True):
        """Returns the number of `size` bytes at a position, int64."""
        at = tf.minimum(tf.cast(at, tf.int64), self.size)
        digits = tf.gather(self.values, at + np.arange(size))
        worth = 256 ** np.arange(size)
        worth = tf.where(little, worth, worth[::-1])
        return tf.reduce_sum(tf.cast(digits, tf.int64) * worth)

    def has(self, at, text):
        """Returns whether bytes stand at a position."""
        return self.number(at, len(text)) == int.from_bytes(text, "little")

    def find(self, start, step):
        """Goes from part to part of the file, until one is found.

        Args:
            start: position of the first part.
            step: from a position to the position that is looked for, or 0, and
                that of the next part; the end of the file ends the search.

        Returns:
            The position, or 0.
        """

        def step_on(_, at):
            found, following = step(at)
            return tf.cast(found, tf.int64), tf.maximum(following, at + 1)

        return tf.while_loop(
            lambda found, at: (found == 0) & (at < self.size),
            step_on,
            (tf.constant(0, tf.int64), tf.cast(start, tf.int64)),
            maximum_iterations=_MOST_PARTS,
        )[0]


def kind_of(data):
    """Returns the index in `SIGNATURES` of what a file begins with.

    Raises:
        tf.errors.InvalidArgumentError: for another file, when it runs.
    """
    starts = [tf.strings.substr(data, 0, len(text)) for text in SIGNATURES]
    found = tf.stack(starts) == tf.constant(SIGNATURES)
    known = tf.debugging.Assert(
        tf.reduce_any(found), ["not a JPEG, PNG, GIF, BMP or WebP image"]
    )
    with tf.control_dependencies([known]):
        return tf.argmax(found, output_type=tf.int32)


def pixels(header, kind, data):
    """Returns how many pixels an image says that it has, int64."""

    def jpeg():
        shape = tf.io.extract_jpeg_shape(data, tf.int64)
        return shape[0] * shape[1]

    def png():
        return header.number(16, 4, False) * header.number(20, 4, False)

    def gif():
        return header.number(6, 2) * header.number(8, 2)

    def bmp():
        height = header.number(22, 4)  # negative where the first row is on top
        return header.number(18, 4) * tf.minimum(height, 2**32 - height)

    def webp():
        sides = (1 + header.number(24, 3)) * (1 + header.number(27, 3))
        # Other kinds have 14 bits for each side.
        return tf.where(header.has(12, b"VP8X"), sides, 0)

    return tf.switch_case(kind, [jpeg, png, gif, bmp, webp])


def orientation(header, kind):
    """Returns the EXIF orientation of a JPEG, PNG or WebP, 1 to 8.

    1 is upright, which is also returned where there is none.
    """

    def jpeg():
        def step(at):
            is_exif = header.has(at, b"\xff\xe1") & header.has(at + 4, b"Exif")
            following = at + 2 + header.number(at + 2, 2, False)
            # Of a fill byte, of the image itself.
            following = tf.where(header.has(at, b"\xff\xff"), at + 1, following)
            is_marker = header.number(at, 1) == 0xFF
            is_end = ~is_marker | header.has(at, b"\xff\xda")
            following = tf.where(is_end, header.size, following)
            return tf.where(is_exif, at + 10, 0), following

        return header.find(2, step)

    def png():
        def step(at):
            following = at + 12 + header.number(at, 4, False)
            is_end = header.has(at + 4, b"IDAT")
            following = tf.where(is_end, header.size, following)
            return tf.where(header.has(at + 4, b"eXIf"), at + 8, 0), following

        return header.find(8, step)

    def webp():
        def step(at):
            size = header.number(at + 4, 4)
            start = tf.where(header.has(at + 8, b"Exif"), at + 14, at + 8)
            found = tf.where(header.has(at, b"EXIF"), start, 0)
            return found, at + 8 + size + size % 2

        return header.find(12, step)

    def none():
        return tf.constant(0, tf.int64)

    found = tf.switch_case(kind, [jpeg, png, none, none, webp])
    return tf.cond(
        found > 0,
        lambda: _of_tiff(header, found),
        lambda: tf.constant(1, tf.int64),
    )


def _of_tiff(header, start):
    """Returns the orientation that a TIFF header's first table has."""
    little = header.has(start, b"II")
    is_tiff = (little | header.has(start, b"MM")) & (
        header.number(start + 2, 2, little) == 42
    )
    table = start + header.number(start + 4, 4, little)
    table = tf.minimum(table, header.size)
    count = header.number(table, 2, little)
    entries = header.values[table + 2 : table + 2 + 12 * count]
    pairs = tf.reshape(entries[: tf.size(entries) // 12 * 12], (-1, 6, 2))
    weights = tf.cast(tf.where(little, [1, 256], [256, 1]), tf.int64)
    numbers = tf.reduce_sum(tf.cast(pairs, tf.int64) * weights, axis=-1)
    # Columns are tag, type, two of the count, two of the value.
    is_it = (numbers[:, 0] == _ORIENTATION) & (numbers[:, 1] == 3)
    value = tf.concat([tf.boolean_mask(numbers[:, 4], is_it), [1]], 0)[0]
    is_valid = is_tiff & (value >= 1) & (value <= 8)
    return tf.where(is_valid, value, 1)


def without_transparency(header, data):
    """Returns a GIF whose first image has none: all its pixels have colours."""
    flags = header.number(10, 1)
    palette = tf.bitwise.left_shift(tf.constant(6, tf.int64), flags % 8)

    def after_sub_blocks(at):
        def step(at):
            size = header.number(at, 1)
            return tf.where(size == 0, at + 1, 0), at + 1 + size

        return header.find(at, step)

    def step(at):
        is_extension = header.has(at, b"!")
        is_control = is_extension & header.has(at + 1, b"\xf9\x04")
        following = tf.cond(
            is_extension, lambda: after_sub_blocks(at + 2), lambda: header.size
        )
        following = tf.where(following == 0, header.size, following)
        return tf.where(is_control, at + 3, 0), following

    at = header.find(13 + tf.where(flags >= 128, palette, 0), step)
    every_byte = tf.constant([bytes([value]) for value in range(256)])
    cleared = tf.gather(every_byte, header.number(at, 1) // 2 * 2)
    place = tf.cast(at, tf.int32)
    return tf.cond(
        at > 0,
        lambda: tf.strings.join(
            [
                tf.strings.substr(data, 0, place),
                cleared,
                tf.strings.substr(data, place + 1, tf.strings.length(data)),
            ]
        ),
        lambda: data,
    )


def bmp_colours(header, image):
    """Returns a BMP's colours, where TensorFlow gives indices of a palette.

    Args:
        header: its bytes.
        image: `(height, width, channels)`, as it was decoded.
    """
    is_plain = (header.number(30, 4) == 0) | (header.number(30, 4) == 3)
    plain = tf.debugging.Assert(is_plain, ["a compressed BMP image"])
    start = 14 + header.number(14, 4)
    palette = header.values[: header.number(10, 4)][start:]
    palette = palette[: tf.size(palette) // 4 * 4]
    colours = tf.reshape(palette, (-1, 4))[:, 2::-1]
    with tf.control_dependencies([plain]):
        return tf.cond(
            header.number(28, 2) == 8,
            lambda: tf.gather(colours, tf.cast(image[..., 0], tf.int32)),
            lambda: image,
        )


def upright(image, orientation):
    """Returns an image turned and mirrored as its EXIF orientation says."""

    def turned():
        on_its_side = tf.cond(
            orientation >= 5,
            lambda: tf.transpose(image, [1, 0, 2]),
            lambda: image,
        )
        # Which of rows and columns are the other way round, by orientation.
        axes = [[], [], [1], [0, 1], [0], [], [1], [0, 1], [0]]
        reversed_ = tf.gather(
            [[0 in each, 1 in each] for each in axes], orientation
        )
        return tf.reverse(on_its_side, tf.where(reversed_)[:, 0])

    return tf.cond(orientation == 1, lambda: image, turned)
