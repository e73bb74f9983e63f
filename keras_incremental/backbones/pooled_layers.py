"""Features of several layers of a network, side by side."""

import math
from collections.abc import Sequence

import keras

from keras_incremental.backbones.building_blocks import global_pool
from keras_incremental.backbones.feature_extractor import as_feature_extractor


def with_pooled_layers(
    backbone: keras.Model, layers: Sequence[str]
) -> keras.Model:
    """Returns a backbone with the features of inner layers beside its own.

    The last layer of a pretrained network tells apart what it was trained on.
    Earlier ones know more of textures and parts, which a linear classifier of
    other classes can use: a closed form (`Analytic`) gains most. Each layer's
    feature maps are averaged over places, and each layer's features scaled to
    one length, so that none of them outweighs the others; the mean square of
    all features of an image is 1.

    Source: Head2Toe (Evci et al., ICML 2022, arXiv:2201.03529), Sec. 3.1,
    without its choice of single features.

    Args:
        backbone: Functional or Sequential Keras model from images to features,
            as `as_feature_extractor` takes it.
        layers: the names of inner layers with one output, `(batch, h, w, c)` or
            `(batch, c)`. A network that is cut at a branch point can use those
            behind it.

    Returns:
        A Functional model that shares the layers and weights of `backbone`,
        images to `(batch, c of all layers + dim)`.

    Raises:
        ValueError: if there is no such layer, a name comes twice, or a layer
            gives neither maps nor vectors.

    >>> image = keras.Input((8, 8, 1))
    >>> maps = keras.layers.Conv2D(4, 3, name="early")(image)
    >>> late = keras.layers.Conv2D(6, 3, name="late")(maps)
    >>> with_pooled_layers(keras.Model(image, late), ["early"]).output_shape
    (None, 10)
    """
    backbone = as_feature_extractor(backbone)
    if len(set(layers)) != len(layers):
        raise ValueError(f"layers={list(layers)} names one of them twice.")
    features = [_pooled(backbone.get_layer(name)) for name in layers]
    features.append(_of_length_1(backbone.outputs[0], backbone.name))
    joined = keras.layers.Concatenate(name="pooled_layers")(features)
    scale = math.sqrt(joined.shape[-1] / len(features))
    outputs = keras.layers.Rescaling(scale, name="pooled_features")(joined)
    return keras.Model(backbone.inputs[0], outputs, name=backbone.name)


def _pooled(layer):
    features = layer.output
    rank = len(getattr(features, "shape", ()))
    if rank not in (2, 4):
        raise ValueError(
            f"The layer {layer.name!r} gives {features}; expected feature maps "
            "(batch, height, width, channels) or vectors (batch, dim)."
        )
    if rank == 4:
        features = global_pool(features, f"{layer.name}_pooled")
    return _of_length_1(features, layer.name)


def _of_length_1(features, name):
    return keras.layers.UnitNormalization(name=f"{name}_of_length_1")(features)
