"""Crops and mirrors of whole batches, and the checks all of them share."""

import numbers

import tensorflow as tf


def check_padding(padding):
    """Raises unless `padding` is a number of pixels."""
    is_int = isinstance(padding, numbers.Integral)
    if not is_int or isinstance(padding, bool) or padding < 0:
        raise ValueError(
            f"padding={padding!r}; expected the number of pixels added to each "
            "side, an int such as 4. Use padding=0 for no crop."
        )


def image_batch(images):
    """Returns `images` as a tensor, checked to be `(batch, h, w, c)`."""
    images = tf.convert_to_tensor(images)
    if images.shape.rank != 4:
        raise ValueError(
            f"images have the shape {images.shape}; expected a batch of rank "
            "4, (batch, height, width, channels). Batch the dataset before "
            "the augmentation, and set the rank where it is unknown "
            "(tf.ensure_shape)."
        )
    return images


def seed_pair(seed):
    """Returns `seed` as int64, checked to be two integers.

    One type, for `tf.random` draws other numbers for the same int32 and int64.
    """
    seed = tf.convert_to_tensor(seed)
    if not (seed.dtype.is_integer and seed.shape.is_compatible_with((2,))):
        raise ValueError(
            f"seed has the type {seed.dtype.name} and the shape {seed.shape}; "
            "expected two integers, as tf.random.stateless_uniform takes, "
            "such as (seed, step)."
        )
    return tf.cast(seed, tf.int64)


def per_image(values):
    """Returns `(batch,)` values as `(batch, 1, 1, 1)`, beside images."""
    return values[:, None, None, None]


def draw_offsets(seed, shape, padding):
    """Draws uniform window offsets (down, right) in `[0, 2 * padding]`.

    Args:
        seed: integer tensor of shape `(2,)`.
        shape: leading axes of the result, one offset pair for each.
        padding: pixels of zero padding on each side.

    Returns:
        int32, `(*shape, 2)`; `padding` itself is the unmoved window.
    """
    return tf.random.stateless_uniform(
        (*shape, 2), seed, 0, 2 * padding + 1, dtype=tf.int32
    )


def window(images, offsets, mirrored, padding):
    """Cuts a window of the images' own size out of their zero-padded version.

    Args:
        images: `(batch, h, w, c)` tensor.
        offsets: int32 `(batch, 2)`, top and left of each window in the padded
            image.
        mirrored: bool `(batch,)`, True to swap the window's left and right.
        padding: pixels of zeros on each side.

    Returns:
        Same shape and type as `images`.
    """
    height, width, channels = tf.unstack(tf.shape(images)[1:])
    sides = [padding, padding]
    padded = tf.pad(images, [[0, 0], sides, sides, [0, 0]])
    columns = tf.range(width)
    columns = tf.where(mirrored[:, None], columns[::-1], columns)
    rows = offsets[:, :1] + tf.range(height)
    columns = offsets[:, 1:] + columns
    # One gather over pixels is faster than one over rows and one over columns.
    padded_width = width + 2 * padding
    pixels = (rows * padded_width)[:, :, None] + columns[:, None, :]
    flat_size = (height + 2 * padding) * padded_width
    flat = tf.reshape(padded, [-1, flat_size, channels])
    result = tf.gather(flat, pixels, axis=1, batch_dims=1)
    return tf.ensure_shape(result, images.shape)
