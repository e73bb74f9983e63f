"""The residual network of He et al. for ImageNet."""

import keras

from keras_incremental.backbones import building_blocks


def _projection_shortcut(x, filters, strides, name, kernel_regularizer):
    """1x1 convolution and batch normalisation, option B of the paper."""
    x = building_blocks.conv(
        x, filters, 1, f"{name}_conv", kernel_regularizer, strides
    )
    return building_blocks.batch_norm(x, f"{name}_bn")


def _stem(x, kernel_regularizer):
    """7x7 convolution and 3x3 max pooling: a quarter of each side."""
    x = building_blocks.conv(x, 64, 7, "stem_conv", kernel_regularizer, 2)
    x = building_blocks.batch_norm(x, "stem_bn")
    x = building_blocks.relu(x, "stem_out")
    # Zeros are neutral for the maximum here: nothing is below 0 after a ReLU.
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)


def resnet18(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    kernel_regularizer: keras.regularizers.Regularizer | None = None,
) -> keras.Model:
    """ResNet-18 for ImageNet: raw images to 512 features.

    He et al. 2016 (arXiv:1512.03385), Table 1: a 7x7 convolution and a max
    pooling, 4 stages of 2 basic blocks with 64, 128, 256 and 512 channels,
    global average pooling. Shortcuts that change the shape are option B (1x1
    convolution), the others the identity. The first layer maps pixels from
    [0, 255] to [-1, 1].

    Args:
        input_shape: `(height, width, channels)` of one image.
        kernel_regularizer: of the kernels of all convolutions, and so of the
            head that an `IncrementalClassifier` adds.

    Returns:
        A Functional model, `(batch, height, width, channels)` of pixels in
        [0, 255], uint8 or float, to `(batch, 512)` in the compute dtype of the
        dtype policy. Stages end in the layers `stage1` to `stage4`.

    Raises:
        ValueError: if `input_shape` is not the shape of an image.

    >>> resnet18().get_layer("stage4").output.shape
    (None, 7, 7, 512)
    """
    image = building_blocks.image_input(input_shape)
    x = building_blocks.rescaling(1 / 127.5, offset=-1.0)(image)
    x = building_blocks.residual_stages(
        _stem(x, kernel_regularizer),
        widths=(64, 128, 256, 512),
        blocks=2,
        shortcut=_projection_shortcut,
        kernel_regularizer=kernel_regularizer,
    )
    features = building_blocks.global_pool(x)
    return keras.Model(image, features, name="resnet18")
