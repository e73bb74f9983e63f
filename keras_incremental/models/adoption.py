"""A trained Keras classifier taken apart: its features and its last layer.

The last weight layer of a classifier, a dense one or a convolution of a single
position, becomes the first head of a classifier that grows; all before it
becomes the backbone. Layers are cloned: the classifier stays as it is.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping

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


@dataclasses.dataclass(frozen=True)
class AdoptedParts:
    """What a classifier is made of.

    Attributes:
        backbone: a new model from raw images to feature vectors, with layers
            and variables of its own.
        head: a new, built layer whose first columns are the classifier's last
            weight layer.
    """

    backbone: keras.Model
    head: ExpandableDense


def class_index(class_names, labels=None) -> ClassIndex:
    """Returns the classes of a classifier, in the order of its outputs.

    Args:
        class_names: their names, unit by unit.
        labels: their labels; by default 0, 1, ...

    Raises:
        TypeError: if `class_names` is no list, or holds other than text.
        ValueError: for no names, an empty name, duplicates, or another number
            of labels than of names.

    >>> class_index(["cat", "dog"]).labels
    [0, 1]
    """
    if isinstance(class_names, (str, bytes, Mapping)) or not isinstance(
        class_names, Iterable
    ):
        raise TypeError(
            f"class_names is a {type(class_names).__name__}; expected a list "
            "of names in the order of the classifier's outputs."
        )
    names = [*class_names]
    if not names:
        raise ValueError(
            "class_names is empty; expected one name for each output of the "
            "classifier."
        )
    for unit, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(
                f"class_names[{unit}] is {name!r}; expected text, such as "
                f"{str(name)!r}."
            )
        if not name.strip():
            raise ValueError(f"class_names[{unit}] is empty; expected a name.")
    labels = range(len(names)) if labels is None else labels
    return ClassIndex(labels, names)


def split_classifier(
    trained: keras.Model, num_classes: int, capacity: int
) -> AdoptedParts:
    """Clones a classifier's features and its last weight layer.

    `logits = features W + b`: what the classifier gives before its softmax.
    Layers keep their dtype policies, and the last one its L1 or L2
    regularisation. Layers that are frozen stay so, unless the last one is
    frozen too. The softmax, and dropout between the last weight layer and the
    output, are left out.

    Args:
        trained: a built Functional or Sequential classifier of one input.
        num_classes: how many outputs it is to have, for a check.
        capacity: columns to allocate in the head; doubled until the classes
            have room.

    Raises:
        TypeError: if `trained` is no Keras model.
        ValueError: if it is not built, has several inputs or outputs, or does
            not end as a classifier does; the message says what was found.

    >>> trained = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3, activation="softmax")]
    ... )
    >>> parts = split_classifier(trained, num_classes=3, capacity=8)
    >>> parts.backbone.output_shape, parts.head.units
    ((None, 4), 3)
    """
    _check_can_be_read(trained)
    graph = Graph(trained)
    index = _last_weight_layer(graph)
    layer = graph.nodes[index].layer
    kernel = _array(layer.kernel)
    kernel = kernel.reshape(-1, kernel.shape[-1])
    _check_number(graph, index, kernel.shape[1], num_classes)
    bias = np.zeros(num_classes, np.float32)
    if layer.use_bias:
        bias = _array(layer.bias)
    return AdoptedParts(
        _clone_features(graph, index), _make_head(layer, kernel, bias, capacity)
    )


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
    shape = graph.nodes[graph.output_index].output_shape
    if len(shape) != 2:
        raise _unsuitable(
            graph,
            graph.output_index,
            f"which gives outputs of shape {shape}, not (batch, classes)",
        )
    index, normalised = graph.output_index, False
    while True:
        node = graph.nodes[index]
        kind = type(node.layer)
        if kind in _DENSE_LIKE:
            _check_head(graph, index, normalised)
            return index
        is_softmax = _is_softmax(node)
        if is_softmax and normalised:
            raise _unsuitable(graph, index, "a second softmax before the last")
        if not is_softmax and not _is_handed_on(node.layer):
            raise _unsuitable(graph, index, _described(node.layer))
        normalised = normalised or is_softmax
        (index,) = node.inputs


def _check_head(graph: Graph, index: int, normalised: bool) -> None:
    """Refuses a last weight layer that is none of a classifier."""
    node = graph.nodes[index]
    layer = node.layer
    activation = layer.activation
    if activation in _SOFTMAXES and normalised:
        raise _unsuitable(graph, index, "a second softmax before the last")
    if activation not in (None, keras.activations.linear, *_SOFTMAXES):
        raise _unsuitable(graph, index, _described(layer))
    if math.prod(node.output_shape[1:]) < 2:
        raise _unsuitable(graph, index, "with a single output")
    if getattr(layer, "quantization_mode", None):
        raise _unsuitable(
            graph, index, f"quantized to {layer.quantization_mode}"
        )
    if not _sees_one_position(node):
        raise _unsuitable(
            graph, index, f"applied to maps of shape {node.input_shapes[0]}"
        )
    if not isinstance(_features(graph, index), keras.KerasTensor):
        raise _unsuitable(graph, index, "after a layer of several outputs")


def _sees_one_position(node) -> bool:
    """Whether a layer multiplies the whole of its input by its kernel."""
    size = math.prod(side or 0 for side in node.input_shapes[0][1:])
    layer = node.layer
    if math.prod(layer.kernel.shape[:-1]) != size:
        return False
    if type(layer) is layers.Dense:
        return True
    is_point = math.prod(layer.kernel_size) == 1
    return is_point or (
        layer.padding == "valid" and layer.data_format == "channels_last"
    )


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


def _check_number(graph, index, units: int, num_classes: int) -> None:
    if units != num_classes:
        raise ValueError(
            f"{graph.network_name!r} has {units} outputs (layer "
            f"{graph.nodes[index].name!r}), but there are {num_classes} class "
            f"names; expected {units}, one for each output, in their order."
        )


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


def _features(graph: Graph, index: int):
    """Returns the tensor that the last weight layer reads."""
    return graph.nodes[graph.nodes[index].inputs[0]].output


def _clone_features(graph: Graph, index: int) -> keras.Model:
    features = _features(graph, index)
    if len(features.shape) > 2:
        name = _free_name(graph, "features")
        features = layers.Flatten(name=name)(features)
    elif features is graph.input:
        features = layers.Identity(name=_free_name(graph, "features"))(features)
    network = keras.Model(graph.input, features, name=graph.network_name)
    clone = clone_network(network)
    if graph.nodes[index].layer.trainable:
        for layer in clone.layers:
            layer.trainable = network.get_layer(layer.name).trainable
    return clone


def _free_name(graph: Graph, name: str) -> str:
    taken = {node.name for node in graph.nodes}
    while name in taken:
        name += "_"
    return name


def _make_head(layer, kernel, bias, capacity: int) -> ExpandableDense:
    units = kernel.shape[1]
    while 0 < capacity < units:
        capacity *= 2
    head = ExpandableDense(
        (units,),
        capacity=capacity,
        kernel_regularizer=_norm_penalty(layer.kernel_regularizer),
        dtype=layer.dtype_policy,
        name="head",
    )
    head.build((None, kernel.shape[0]))
    # One block is allocated: its kernel and its bias.
    for block, values in zip(
        head.trainable_variables, (kernel, bias), strict=True
    ):
        columns = _array(block).copy()
        columns[..., :units] = values
        block.assign(columns)
    return head


def _norm_penalty(regularizer):
    """Returns a penalty to which columns not in use (zeros) add nothing."""
    kinds = (
        keras.regularizers.L1,
        keras.regularizers.L2,
        keras.regularizers.L1L2,
    )
    return regularizer if type(regularizer) in kinds else None


def _array(variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable).astype(np.float32)


_DENSE_LIKE = (layers.Dense, layers.Conv2D)
_SOFTMAXES = (keras.activations.softmax, keras.activations.log_softmax)
_VIEWS = (
    layers.ActivityRegularization,
    layers.Dropout,
    layers.Flatten,
    layers.Identity,
    layers.Reshape,
)
