"""A network small enough to learn 8x8 digits in seconds."""

import keras

from keras_incremental.backbones import building_blocks


def _stage(x, filters, stage, kernel_regularizer):
    """3x3 convolution, batch normalisation, ReLU."""
    name = f"stage{stage}_block1"
    x = building_blocks.conv(x, filters, 3, f"{name}_conv1", kernel_regularizer)
    x = building_blocks.batch_norm(x, f"{name}_bn1")
    x = building_blocks.relu(x, f"{name}_out")
    return building_blocks.end_of_stage(x, stage)


def small(
    input_shape: tuple[int, int, int] = (8, 8, 1),
    kernel_regularizer: keras.regularizers.Regularizer | None = None,
) -> keras.Model:
    """Small convolutional network: raw images to 64 features.

    Three 3x3 convolutions with 32, 64 and 64 channels, each with batch
    normalisation and ReLU, a 2x2 max pooling after the first, global average
    pooling. The first layer maps pixels from [0, 255] to [0, 1], so that a
    black background and the zero padding are the same.

    Args:
        input_shape: `(height, width, channels)` of one image, at least 2x2.
        kernel_regularizer: of the kernels of all convolutions, and so of the
            head that an `IncrementalClassifier` adds.

    Returns:
        A Functional model, `(batch, height, width, channels)` of pixels in
        [0, 255], uint8 or float, to `(batch, 64)` in the compute dtype of the
        dtype policy. Stages end in the layers `stage1`, `stage2`, `stage3`.

    Raises:
        ValueError: if `input_shape` is not the shape of an image.

    >>> small().output_shape
    (None, 64)
    """
    image = building_blocks.image_input(input_shape)
    x = building_blocks.rescaling(1 / 255)(image)
    x = _stage(x, 32, 1, kernel_regularizer)
    x = keras.layers.MaxPooling2D(2, name="stage2_pool")(x)
    x = _stage(x, 64, 2, kernel_regularizer)
    x = _stage(x, 64, 3, kernel_regularizer)
    return keras.Model(image, building_blocks.global_pool(x), name="small")
