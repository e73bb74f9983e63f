"""The residual networks of He et al. for 32x32 images."""

import keras
from keras import ops

from keras_incremental.backbones import building_blocks


@keras.saving.register_keras_serializable(package="keras_incremental")
class ZeroPadShortcut(keras.layers.Layer):
    """Shortcut without parameters: every n-th pixel, zeros as new channels.

    Option A of He et al. 2016 (arXiv:1512.03385), section 3.3 and 4.2. The new
    channels come after the old ones.

    Args:
        filters: channels of the output, at least those of the input.
        strides: keep the pixels 0, `strides`, 2 * `strides`, ... of both axes.

    Input shape: `(batch, h, w, c)`.
    Output shape: `(batch, ceil(h / strides), ceil(w / strides), filters)`.

    >>> ZeroPadShortcut(3, strides=2)(keras.ops.ones((1, 4, 4, 2))).shape
    TensorShape([1, 2, 2, 3])
    """

    def __init__(self, filters, strides=1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides

    def call(self, x):
        # Means of single pixels: TensorFlow slices in steps far more slowly.
        x = ops.average_pool(
            x, 1, self.strides, padding="valid", data_format="channels_last"
        )
        added = self.filters - x.shape[-1]
        return ops.pad(x, [[0, 0], [0, 0], [0, 0], [0, added]])

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": self.strides,
        }


def _zero_pad_shortcut(x, filters, strides, name, kernel_regularizer):
    del kernel_regularizer  # there is no kernel
    return ZeroPadShortcut(filters, strides, name=name)(x)


def _cifar_resnet(
    blocks, input_shape, kernel_regularizer, name, final_relu=True
):
    """The `6 * blocks + 2` layer network, classifier counted but left out."""
    image = building_blocks.image_input(input_shape)
    x = building_blocks.rescaling(1 / 127.5, offset=-1.0)(image)
    x = building_blocks.conv(x, 16, 3, "stem_conv", kernel_regularizer)
    x = building_blocks.batch_norm(x, "stem_bn")
    x = building_blocks.relu(x, "stem_out")
    x = building_blocks.residual_stages(
        x,
        widths=(16, 32, 64),
        blocks=blocks,
        shortcut=_zero_pad_shortcut,
        kernel_regularizer=kernel_regularizer,
        final_relu=final_relu,
    )
    return keras.Model(image, building_blocks.global_pool(x), name=name)


def resnet20(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    kernel_regularizer: keras.regularizers.Regularizer | None = None,
) -> keras.Model:
    """ResNet-20 for CIFAR: raw images to 64 features.

    He et al. 2016 (arXiv:1512.03385), section 4.2 with n = 3. See `resnet32`.

    Args:
        input_shape: `(height, width, channels)` of one image.
        kernel_regularizer: of the kernels of all convolutions, and so of the
            head that an `IncrementalClassifier` adds.

    Returns:
        A Functional model, `(batch, height, width, channels)` of pixels in
        [0, 255], uint8 or float, to `(batch, 64)`.

    Raises:
        ValueError: if `input_shape` is not the shape of an image.

    >>> resnet20().output_shape
    (None, 64)
    """
    return _cifar_resnet(3, input_shape, kernel_regularizer, "resnet20")


def resnet32(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    kernel_regularizer: keras.regularizers.Regularizer | None = None,
    final_relu: bool = True,
) -> keras.Model:
    """ResNet-32 for CIFAR: raw images to 64 features, as in iCaRL and EEIL.

    He et al. 2016 (arXiv:1512.03385), section 4.2 with n = 5: a 3x3
    convolution, then 3 stages of n basic blocks with 16, 32 and 64 channels,
    global average pooling. Shortcuts are option A (no parameters). The first
    layer maps pixels from [0, 255] to [-1, 1]; the paper subtracts the mean
    image of its training set, which an incremental learner does not have. The
    authors of EEIL have fixed random 1x1 convolutions as shortcuts, and a bias
    in the first convolution.

    Args:
        input_shape: `(height, width, channels)` of one image.
        kernel_regularizer: of the kernels of all convolutions, and so of the
            head that an `IncrementalClassifier` adds.
        final_relu: whether the last block ends in a ReLU. Not in the network
            of iCaRL's authors, so that features of both signs are averaged.

    Returns:
        A Functional model, `(batch, height, width, channels)` of pixels in
        [0, 255], uint8 or float, to `(batch, 64)` in the compute dtype of the
        dtype policy. Stages end in the layers `stage1`, `stage2`, `stage3`.

    Raises:
        ValueError: if `input_shape` is not the shape of an image.

    >>> resnet32().get_layer("stage2").output.shape
    (None, 16, 16, 32)
    """
    return _cifar_resnet(
        5, input_shape, kernel_regularizer, "resnet32", final_relu
    )


def resnet56(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    kernel_regularizer: keras.regularizers.Regularizer | None = None,
) -> keras.Model:
    """ResNet-56 for CIFAR: raw images to 64 features.

    He et al. 2016 (arXiv:1512.03385), section 4.2 with n = 9. See `resnet32`.

    Args:
        input_shape: `(height, width, channels)` of one image.
        kernel_regularizer: of the kernels of all convolutions, and so of the
            head that an `IncrementalClassifier` adds.

    Returns:
        A Functional model, `(batch, height, width, channels)` of pixels in
        [0, 255], uint8 or float, to `(batch, 64)`.

    Raises:
        ValueError: if `input_shape` is not the shape of an image.

    >>> resnet56().output_shape
    (None, 64)
    """
    return _cifar_resnet(9, input_shape, kernel_regularizer, "resnet56")
