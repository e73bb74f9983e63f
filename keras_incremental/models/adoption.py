"""A trained Keras classifier taken apart: its features and its last layer.

The last weight layer of a classifier, a dense one or a convolution of a single
position, becomes the first head of a classifier that grows; all before it
becomes the backbone. Layers are cloned: the classifier stays as it is.
"""

import math
from collections.abc import Mapping

import keras
import numpy as np
from keras import layers

from keras_incremental.graphs import Graph, clone_network
from keras_incremental.labels import ClassIndex
from keras_incremental.layers import ExpandableDense

_EXPECTED = (
    "Expected a classifier of 2 or more classes that exclude one another: its "
    "last weight layer a Dense layer (or a convolution that sees one position) "
    "that gives logits, or softmax probabilities"
)


def class_index(class_names, labels=None) -> ClassIndex:
    """Returns the classes of a classifier, in the order of its outputs.

    Args:
        class_names: their names, unit by unit.
        labels: their labels; by default 0, 1, ...

    Raises:
        ValueError: if `class_names` is no list of texts, or for an empty name,
            duplicates, or another number of labels than of names.

    >>> class_index(["cat", "dog"]).labels
    [0, 1]
    """
    is_list = not isinstance(class_names, (str, Mapping, type(None)))
    names = [*class_names] if is_list else []
    if not names or not all(isinstance(n, str) and n.strip() for n in names):
        raise ValueError(
            f"class_names={class_names!r}; expected a list of names, one for "
            "each output of the classifier, in their order."
        )
    return ClassIndex(range(len(names)) if labels is None else labels, names)


def split_classifier(
    trained: keras.Model, num_classes: int, capacity: int
) -> tuple[keras.Model, ExpandableDense]:
    """Clones a classifier's features and its last weight layer.

    `logits = features W + b`: what the classifier gives before its softmax.
    Layers keep their dtype policies, and the last one its regularisation.
    Layers that are frozen stay so, unless the last one is frozen too. The
    softmax, and dropout between the last weight layer and the output, are left
    out.

    Args:
        trained: a built Functional or Sequential classifier of one input.
        num_classes: how many outputs it is to have, for a check.
        capacity: columns to allocate in the head; doubled until the classes
            have room.

    Returns:
        a new model from raw images to feature vectors, and a new, built head
        whose first columns are the classifier's last weight layer.

    Raises:
        TypeError: if `trained` is no Keras model.
        ValueError: if it is not built, has several inputs or outputs, or does
            not end as a classifier does; the message says what was found.

    >>> trained = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3, activation="softmax")]
    ... )
    >>> backbone, head = split_classifier(trained, num_classes=3, capacity=8)
    >>> backbone.output_shape, head.units
    ((None, 4), 3)
    """
    _check_can_be_read(trained)
    graph = Graph(trained)
    index = _last_weight_layer(graph)
    layer = graph.nodes[index].layer
    units = layer.kernel.shape[-1]
    if units != num_classes:
        raise ValueError(
            f"{graph.network_name!r} has {units} outputs (layer "
            f"{graph.nodes[index].name!r}), but there are {num_classes} class "
            f"names; expected {units}, one for each output, in their order."
        )
    return _clone_features(graph, index), _make_head(layer, units, capacity)


# What the classifier is made of.


def _check_can_be_read(trained) -> None:
    if not isinstance(trained, keras.Model):
        raise TypeError(
            f"from_classifier got a {type(trained).__name__}; expected a "
            "keras.Model, such as keras.models.load_model(path)."
        )
    inputs = getattr(trained, "inputs", None)
    outputs = getattr(trained, "outputs", None)
    if not inputs or not outputs:
        raise ValueError(
            f"The layers of {trained.name!r}, a {type(trained).__name__}, "
            "cannot be seen: it is a Sequential model that is not built, or a "
            "subclassed model. Expected a built Functional or Sequential "
            "classifier. Call a Sequential model on a batch first; rebuild a "
            "subclassed one from its layers, keras.Model(inputs, outputs)."
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"{trained.name!r} has {len(inputs)} inputs and {len(outputs)} "
            "outputs; expected one of each, images and class scores. Pick "
            "them: keras.Model(trained.inputs[0], trained.outputs[0])."
        )


def _last_weight_layer(graph: Graph) -> int:
    """Returns the node whose outputs are the logits."""
    index, softmaxes = graph.output_index, 0
    shape = graph.nodes[index].output_shape
    if len(shape) != 2:
        raise _unsuitable(
            graph,
            index,
            f"which gives outputs of shape {shape}, not (batch, classes)",
        )
    while type(graph.nodes[index].layer) not in _DENSE_LIKE:
        node = graph.nodes[index]
        is_softmax = _is_softmax(node)
        if not is_softmax and not _is_handed_on(node.layer):
            raise _unsuitable(graph, index, _described(node.layer))
        softmaxes += is_softmax
        (index,) = node.inputs
    if reason := _why_no_head(graph.nodes[index], softmaxes):
        raise _unsuitable(graph, index, reason)
    return index


def _why_no_head(node, softmaxes: int) -> str | None:
    """Returns why a dense layer is none of a classifier, or `None`."""
    layer = node.layer
    if softmaxes + (layer.activation in _SOFTMAXES) > 1:
        return "a second softmax before the last"
    if layer.activation not in (keras.activations.linear, *_SOFTMAXES):
        return _described(layer)
    if math.prod(node.output_shape[1:]) < 2:
        return "with a single output"
    if layer.quantization_mode:
        return f"quantized to {layer.quantization_mode}"
    # Such a layer multiplies the whole of its input by its kernel.
    size = math.prod(side or 0 for side in node.input_shapes[0][1:])
    sides = math.prod(layer.kernel.shape[:-1]), math.prod(node.output_shape[1:])
    if sides != (size, layer.kernel.shape[-1]):
        return f"applied to maps of shape {node.input_shapes[0]}"
    return None


def _is_softmax(node) -> bool:
    """Whether a node is a (log-)softmax over all outputs."""
    layer = node.layer
    if math.prod(node.output_shape[1:]) != node.output_shape[-1]:
        return False
    if isinstance(layer, layers.Activation):
        return layer.activation in _SOFTMAXES
    # Operations of `keras.ops` are known by the names of their classes.
    is_named = type(layer).__name__ in ("Softmax", "LogSoftmax")
    return is_named and layer.axis in (-1, len(node.output_shape) - 1)


def _is_handed_on(layer) -> bool:
    """Whether a layer hands its input on at inference."""
    if type(layer) is layers.Activation:
        return layer.activation is keras.activations.linear
    return type(layer) in _VIEWS


def _unsuitable(graph: Graph, index: int, what: str) -> ValueError:
    node = graph.nodes[index]
    return ValueError(
        f"{graph.network_name!r} ends in the layer {node.name!r} "
        f"({type(node.layer).__name__}), {what}. {_EXPECTED}. Start from "
        "features alone with IncrementalClassifier(backbone)."
    )


def _described(layer) -> str:
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", None)
    if name == "sigmoid":
        return "with the activation sigmoid, as for several labels an image"
    if name not in (None, "linear"):
        return f"with the activation {name}"
    return "from which logits cannot be read"


# The parts made anew.


def _clone_features(graph: Graph, index: int) -> keras.Model:
    features = graph.nodes[graph.nodes[index].inputs[0]].output
    name = f"features_of_{graph.network_name}"
    if len(features.shape) > 2:
        features = layers.Flatten(name=name)(features)
    elif features is graph.input:
        features = layers.Identity(name=name)(features)
    network = keras.Model(graph.input, features, name=graph.network_name)
    clone = clone_network(network)
    if graph.nodes[index].layer.trainable:
        for layer in clone.layers:
            layer.trainable = network.get_layer(layer.name).trainable
    return clone


def _make_head(layer, units: int, capacity: int) -> ExpandableDense:
    while 0 < capacity < units:
        capacity *= 2
    kernel = keras.ops.convert_to_numpy(layer.kernel).reshape(-1, units)
    bias = np.zeros(units)
    if layer.use_bias:
        bias = keras.ops.convert_to_numpy(layer.bias)
    head = ExpandableDense(
        (units,),
        capacity=capacity,
        kernel_regularizer=layer.kernel_regularizer,
        dtype=layer.dtype_policy,
        name="head",
    )
    head.build((None, len(kernel)))
    head.set_head_weights(0, kernel, bias)
    return head


_DENSE_LIKE = (layers.Dense, layers.Conv2D)
_SOFTMAXES = (keras.activations.softmax, keras.activations.log_softmax)
_VIEWS = (
    layers.ActivityRegularization,
    layers.Dropout,
    layers.Flatten,
    layers.Identity,
    layers.Reshape,
)
