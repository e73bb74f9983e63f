"""The parts that the convolutional backbones share."""

import numbers

import keras

from keras_incremental.layers import FusedBatchNormalization


def image_input(input_shape):
    """Returns the Keras input of one raw image batch.

    Args:
        input_shape: `(height, width, channels)` of one image; height and width
            may be None, channels may not.

    Returns:
        A float32 `keras.KerasTensor`, `(batch, height, width, channels)`;
        integer images are cast to float32 by the model.

    Raises:
        ValueError: if the shape is not that of an image, or Keras is set to
            channels first.
    """
    if not _is_image_shape(input_shape):
        raise ValueError(
            f"input_shape={input_shape!r} is not the shape of an image. Pass "
            "(height, width, channels) as positive ints, without the batch "
            "axis, such as (32, 32, 3)."
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "keras.config.image_data_format() is "
            f"{keras.config.image_data_format()!r}; the backbones are built "
            "for 'channels_last'. Call "
            "keras.config.set_image_data_format('channels_last') first."
        )
    return keras.Input(tuple(input_shape), dtype="float32", name="image")


def _is_image_shape(shape):
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        return False
    return shape[-1] is not None and all(
        size is None or (isinstance(size, numbers.Integral) and size > 0)
        for size in shape
    )


def rescaling(scale, offset=0.0):
    """Returns the preprocessing layer `pixels * scale + offset`.

    It computes in float32 under every dtype policy: bfloat16 could not tell
    neighbouring bright pixels apart after the scaling.
    """
    return keras.layers.Rescaling(
        scale, offset, dtype="float32", name="rescaling"
    )


def conv(
    x, filters, kernel_size, name, kernel_regularizer, strides=1, centred=True
):
    """Convolution without bias, He-normal, zero padded by `kernel_size // 2`.

    With a stride, Keras' `padding="same"` pads even sizes at the bottom and
    the right only, one pixel off the shortcut beside it; there the padding is
    explicit and the same on each side, as in the authors' networks, unless
    `centred` is off.
    """
    padding = "same"
    if centred and strides > 1 and kernel_size > 1:
        x = keras.layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=False,
        kernel_initializer=keras.initializers.HeNormal(),
        kernel_regularizer=kernel_regularizer,
        name=name,
    )(x)


def batch_norm(x, name, epsilon=1e-5):
    """Batch normalisation, momentum 0.9."""
    return FusedBatchNormalization(momentum=0.9, epsilon=epsilon, name=name)(x)


def relu(x, name):
    """Rectified linear activation as a layer of its own."""
    return keras.layers.ReLU(name=name)(x)


def end_of_stage(x, stage):
    """Names the one tensor that leaves stage number `stage`."""
    return keras.layers.Identity(name=f"stage{stage}")(x)


def global_pool(x, name="features"):
    """Mean over height and width: `(batch, h, w, c)` to `(batch, c)`."""
    return keras.layers.GlobalAveragePooling2D(
        data_format="channels_last", name=name
    )(x)


def basic_block(x, filters, name, strides, shortcut, kernel_regularizer):
    """Two 3x3 convolutions and a shortcut, `F(x) + shortcut(x)`.

    He et al. 2016 (arXiv:1512.03385), Eq. 1 and 2 and Fig. 5, left, without
    the ReLU behind the sum.

    Args:
        x: `(batch, h, w, c)` Keras tensor.
        filters: channels of both convolutions.
        name: prefix of the layers' names.
        strides: stride of the first convolution.
        shortcut: `callable(x, filters, strides, name, kernel_regularizer)`,
            called where the shape changes; elsewhere the shortcut is the
            identity.
        kernel_regularizer: of every kernel, or `None`.

    Returns:
        `(batch, ceil(h / strides), ceil(w / strides), filters)`.
    """
    y = conv(x, filters, 3, f"{name}_conv1", kernel_regularizer, strides)
    y = relu(batch_norm(y, f"{name}_bn1"), f"{name}_relu1")
    y = conv(y, filters, 3, f"{name}_conv2", kernel_regularizer)
    y = batch_norm(y, f"{name}_bn2")
    if strides > 1 or x.shape[-1] != filters:
        x = shortcut(
            x, filters, strides, f"{name}_shortcut", kernel_regularizer
        )
    return keras.layers.Add(name=f"{name}_add")([x, y])


def residual_stages(
    x, widths, blocks, shortcut, kernel_regularizer, final_relu=True
):
    """Stages of `blocks` basic blocks each; all but the first halve the size.

    Args:
        x: `(batch, h, w, c)` Keras tensor.
        widths: channels of each stage.
        blocks: number of blocks in each stage.
        shortcut, kernel_regularizer: see `basic_block`.
        final_relu: whether the last block ends in a `relu`, as the others do.

    Returns:
        The output of the last stage.
    """
    for stage, filters in enumerate(widths, start=1):
        for block in range(1, blocks + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            x = basic_block(
                x, filters, name, strides, shortcut, kernel_regularizer
            )
            is_last = (stage, block) == (len(widths), blocks)
            if final_relu or not is_last:
                x = relu(x, f"{name}_out")
        x = end_of_stage(x, stage)
    return x
