"""Checks a user's network and makes it end in feature vectors."""

import keras

from keras_incremental.backbones.building_blocks import global_pool


def as_feature_extractor(backbone: keras.Model) -> keras.Model:
    """Returns a model from images to feature vectors that uses `backbone`.

    A model that gives feature vectors is returned as it is. One that gives
    feature maps gets a global average pooling, in a new Functional model that
    shares the layers and weights of `backbone`. So does a Sequential model
    that was built by a batch, and so for one batch size: the new one is for
    any.

    Args:
        backbone: Functional or Sequential Keras model with one input and one
            output, `(batch, dim)` or `(batch, h, w, c)`. It does its own
            preprocessing.

    Returns:
        A Functional or Sequential model, images to `(batch, dim)`.

    Raises:
        TypeError: if `backbone` is not a Keras model.
        ValueError: if its input shape is unknown, it has several inputs or
            outputs, its output is neither vectors nor maps or has an unknown
            last dimension, or it is a classifier that ends in a softmax.

    >>> maps = keras.Sequential(
    ...     [keras.Input((8, 8, 1)), keras.layers.Conv2D(16, 3)]
    ... )
    >>> as_feature_extractor(maps).output_shape
    (None, 16)
    """
    if not isinstance(backbone, keras.Model):
        raise TypeError(
            f"backbone is a {type(backbone).__name__}, not a keras.Model. Pass "
            "a Functional or Sequential model from images to features, such as "
            "keras_incremental.backbones.resnet32()."
        )
    _check_single_input_and_output(backbone)
    _check_is_not_classifier(backbone)
    backbone = _for_any_batch_size(backbone)
    features = backbone.outputs[0]
    _check_feature_shape(backbone, features.shape)
    if len(features.shape) == 4:
        features = global_pool(features, f"{backbone.name}_pool")
    elif _takes_and_gives_one_tensor(backbone):
        return backbone
    return keras.Model(backbone.inputs[0], features, name=backbone.name)


def _for_any_batch_size(backbone):
    """Undoes the batch size that a first batch gave to a Sequential model."""
    image = backbone.inputs[0]
    if image.shape[0] is None or not isinstance(backbone, keras.Sequential):
        return backbone
    return keras.Sequential(
        [keras.Input(image.shape[1:], dtype=image.dtype), *backbone.layers],
        name=backbone.name,
    )


def _takes_and_gives_one_tensor(backbone):
    """False for a Functional model of a list or a dict of one tensor."""
    return isinstance(backbone, keras.Sequential) or all(
        isinstance(tensor, keras.KerasTensor)
        for tensor in (backbone.input, backbone.output)
    )


def _check_single_input_and_output(backbone):
    inputs = getattr(backbone, "inputs", None)
    outputs = getattr(backbone, "outputs", None)
    if not inputs or not outputs:
        raise ValueError(
            f"The input shape of backbone {backbone.name!r} is not known: it "
            "is a Sequential model that is not built, or a subclassed model. "
            "Give a Sequential model a keras.Input(shape) as its first layer; "
            "wrap a subclassed model: image = keras.Input(shape); "
            "keras.Model(image, model(image))."
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"backbone {backbone.name!r} has {len(inputs)} inputs and "
            f"{len(outputs)} outputs; expected one of each, images and "
            "features. Pick them: keras.Model(backbone.inputs[0], "
            "backbone.outputs[0])."
        )


def _check_is_not_classifier(backbone):
    last = backbone.layers[-1]
    while isinstance(last, keras.Model) and last.layers:
        last = last.layers[-1]
    is_softmax = (
        isinstance(last, keras.layers.Softmax)
        or getattr(last, "activation", None) is keras.activations.softmax
    )
    if is_softmax:
        raise ValueError(
            f"backbone {backbone.name!r} ends in the softmax of layer "
            f"{last.name!r}: these are class probabilities, not features. Pass "
            "the part up to the features layer: "
            "keras.Model(backbone.inputs[0], "
            "backbone.get_layer(features_name).output), or start from the "
            "whole classifier with IncrementalClassifier.from_classifier."
        )


def _check_feature_shape(backbone, shape):
    if len(shape) not in (2, 4):
        raise ValueError(
            f"backbone {backbone.name!r} gives outputs of shape {shape}; "
            "expected feature vectors (batch, dim) or feature maps (batch, "
            "height, width, channels). Add a layer that makes one of them, "
            "such as keras.layers.Flatten()."
        )
    if shape[-1] is None:
        raise ValueError(
            f"backbone {backbone.name!r} gives outputs of shape {shape}; the "
            "number of features (the last dimension) must be known. Give its "
            "keras.Input a complete shape, or end it in a layer with a fixed "
            "number of units."
        )
