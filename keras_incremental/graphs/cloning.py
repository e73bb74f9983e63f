"""Clones of a network, as wide as it or thinner."""

import collections
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_incremental.graphs.graph import Graph, Node
from keras_incremental.layers import FusedBatchNormalization

# Indices of the channels that are kept, ascending; None keeps them all.
_Kept = np.ndarray | None


def clone_network(network: keras.Model, width: float = 1.0) -> keras.Model:
    """Returns a clone of a network with `width` times the channels.

    A layer of `n` filters or units keeps `round(width * n)` of them, one at
    least: those of the largest kernel norm `||W[..., c]||_2`, in their order;
    the weights that read them are selected alike. `width=1` is an exact clone:
    all weights are equal, the moving statistics of batch normalisation
    included.

    Source: Li et al. 2017 (arXiv:1608.08710), section 3, who sum absolute
    values instead. As in their independent pruning, the norm is over the whole
    kernel, dropped inputs included. As in their section 3.3, of a residual
    block only the inner convolutions are thinned.

    Thinned are the outputs of `Conv2D` (one group) and `Dense` layers that
    only other such layers, or the output of the network, read. Between them
    may be layers that keep channels apart: batch normalisation, elementwise
    activations, dropout, 2D pooling, padding, cropping and upsampling,
    depthwise convolution of multiplier 1, `Identity`, `Flatten`. Kept at full
    width are the channels of the input of the network, and those that

    - meet in a merge layer (`Add`, `Concatenate`, `Multiply`, ...),
    - reach a layer that is not named here, of which a subclass is one, or an
      activation that mixes channels (softmax),
    - leave or feed a layer that is called twice, or
    - are not on the last axis (`data_format="channels_first"`).

    Args:
        network: a built Functional or Sequential model of one input and one
            output. It does not change.
        width: share of the channels to keep, in (0, 1].

    Returns:
        A Functional model with layers and variables of its own, all of them
        trainable. Inputs, names and dtype policies are those of `network`;
        nested models are opened. Its features, too, may be fewer.

    Raises:
        ValueError: if `width` is below 1 and there is no layer to thin.

    >>> network = keras.Sequential(
    ...     [
    ...         keras.Input((8, 8, 3)),
    ...         keras.layers.Conv2D(16, 3),
    ...         keras.layers.GlobalAveragePooling2D(),
    ...     ]
    ... )
    >>> clone_network(network, width=0.25).output_shape
    (None, 4)
    """
    graph = Graph(network)
    kept: list[_Kept] = [None] * len(graph.nodes)
    if width < 1:
        kept = _kept_channels(graph, width)
    clone = _clone(graph, kept)
    _copy_weights(graph, kept, clone)
    for layer in clone.layers:
        # The model's own flag is set, and setting it again would do nothing.
        layer.trainable = True
    return clone


def check_cloneable(network: keras.Model) -> None:
    """Refuses a network with a layer that cannot be cloned.

    Raises:
        ValueError: naming the layer.
    """
    for layer in network.layers:
        cloned_layer(layer)


def cloned_layer(
    layer: keras.layers.Layer, **changes: Any
) -> keras.layers.Layer:
    """Returns a layer of the same configuration, without weights.

    Args:
        layer: of a network.
        **changes: to the configuration.

    Raises:
        ValueError: if the configuration does not make a layer; it is named, or
            the one inside of it.

    >>> cloned_layer(keras.layers.Dense(4, name="dense"), units=2).units
    2
    """
    if not isinstance(layer, layers.Layer):
        return layer  # An operation of `keras.ops`: it has no state.
    try:
        return type(layer).from_config({**layer.get_config(), **changes})
    except Exception as error:  # of any kind: the layer's own code runs
        for inner in getattr(layer, "layers", ()):
            cloned_layer(inner)
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) cannot be "
            f"cloned from its configuration. Give its class a get_config of "
            "all its arguments and an __init__ with **kwargs for name and "
            "dtype; write a Lambda of a Python lambda as such a class, or with "
            f"keras.ops. The reason: {error}"
        ) from error


# What of the network can be thinned.


def _kept_channels(graph: Graph, width: float) -> list[_Kept]:
    """Returns the channels to keep of each node's output."""
    thinned = _thinnable(graph)
    if not thinned:
        raise ValueError(
            f"width={width} is below 1, but no layer of "
            f"{graph.network_name!r} can be thinned: it has no convolution or "
            "dense layer whose channels only others of their kind read, since "
            "they meet in a merge layer or reach a layer that is not known. "
            "Use width=1, or an earlier branch point."
        )
    kept: list[_Kept] = []
    for index, node in enumerate(graph.nodes):
        if index in thinned:
            kept.append(_strongest_channels(node.layer, width))
        elif type(node.layer) in _PASSES and len(node.inputs) == 1:
            kept.append(_passed_on(node, kept[node.inputs[0]]))
        else:
            kept.append(None)
    return kept


def _thinnable(graph: Graph) -> set[int]:
    """Returns the nodes whose output channels can be dropped."""
    calls = collections.Counter(id(node.layer) for node in graph.nodes)
    readers = graph.readers()
    # Whether all that reads a node's output lets some of its channels go.
    free = [True] * len(graph.nodes)
    thinnable = set()
    for index, node in reversed(list(enumerate(graph.nodes))):
        free[index] = all(
            calls[id(graph.nodes[reader].layer)] == 1
            and _lets_go(graph.nodes[reader], free[reader])
            for reader in readers[index]
        )
        once = calls[id(node.layer)] == 1
        if free[index] and once and _makes_channels(node):
            thinnable.add(index)
    return thinnable


def _lets_go(reader: Node, free: bool) -> bool:
    """Whether a layer of an output that is `free` can read fewer channels."""
    return _mixes(reader) or (free and _keeps_apart(reader))


def _makes_channels(node: Node) -> bool:
    return _mixes(node) and _is_elementwise(node)


def _mixes(node: Node) -> bool:
    """Whether each output channel of a layer is made of all the inputs'."""
    layer = node.layer
    return (
        type(layer) in _SIZES
        and _is_plain(node)
        and getattr(layer, "groups", 1) == 1
        # Layers with low-rank adapters or quantised kernels have more.
        and len(layer.weights) == 1 + layer.use_bias
    )


def _keeps_apart(node: Node) -> bool:
    """Whether each output channel of a layer is made of one input channel."""
    suits = _PASSES.get(type(node.layer))
    return suits is not None and _is_plain(node) and suits(node)


def _is_plain(node: Node) -> bool:
    """Whether a layer reads one tensor, channels on the last axis."""
    data_format = getattr(node.layer, "data_format", "channels_last")
    return len(node.inputs) == 1 and data_format == "channels_last"


def _strongest_channels(layer, width: float) -> np.ndarray:
    """Returns the output channels of the largest norm, the first of equals."""
    kernel = layer.get_weights()[0].astype("float64")
    norms = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)
    order = np.argsort(-norms, kind="stable")
    return np.sort(order[: max(round(width * len(norms)), 1)])


def _passed_on(node: Node, kept: _Kept) -> _Kept:
    """Returns the kept channels behind a layer that keeps them apart."""
    if kept is None or type(node.layer) is not layers.Flatten:
        return kept
    *pixels, channels = node.input_shapes[0][1:]
    return np.add.outer(np.arange(math.prod(pixels)) * channels, kept).ravel()


# The thin network.


def _clone(graph: Graph, kept: list[_Kept]) -> keras.Model:
    """Returns a network of the kept channels, with fresh weights."""
    sizes = {
        node.name: {_SIZES[type(node.layer)]: len(channels)}
        for node, channels in zip(graph.nodes, kept, strict=True)
        if type(node.layer) in _SIZES and channels is not None
    }

    def clone_layer(layer):
        return cloned_layer(layer, **sizes.get(layer.name, {}))

    opened = keras.Model(graph.input, graph.output, name=graph.network_name)
    return keras.models.clone_model(opened, clone_function=clone_layer)


def _copy_weights(graph: Graph, kept: list[_Kept], clone: keras.Model) -> None:
    """Assigns the kept part of each layer's weights to its clone."""
    for layer in clone.layers:
        index = graph.index(layer.name)
        node = graph.nodes[index]
        if not node.layer.weights:
            continue
        read = kept[node.inputs[0]] if node.inputs else None
        select = _SELECTIONS.get(type(node.layer), _select_channels)
        layer.set_weights(select(node.layer.get_weights(), read, kept[index]))
        if isinstance(layer, layers.Normalization):
            # It computes with constants that it makes of its weights.
            layer.finalize_state()


def _select_mixing(weights, read: _Kept, made: _Kept) -> list[np.ndarray]:
    """Selects from a kernel `(..., read, made)` and a bias `(made,)`."""
    kernel, *bias = weights
    kernel = _take(_take(kernel, read, -2), made, -1)
    return [kernel, *_select_channels(bias, read, made)]


def _select_depthwise(weights, read: _Kept, made: _Kept) -> list[np.ndarray]:
    """Selects from a kernel `(h, w, read, 1)` and a bias `(read,)`."""
    kernel, *bias = weights
    return [_take(kernel, read, -2), *_select_channels(bias, read, made)]


def _select_channels(weights, read: _Kept, made: _Kept) -> list[np.ndarray]:
    """Selects from weights whose last axis is that of the channels."""
    return [_take(weight, made, -1) for weight in weights]


def _take(weight: np.ndarray, kept: _Kept, axis: int) -> np.ndarray:
    return weight if kept is None else np.take(weight, kept, axis)


# What is known of the layers.


def _always(node: Node) -> bool:
    return True


def _is_elementwise(node: Node) -> bool:
    """Whether an activation gives fewer channels the same values."""
    values = np.linspace(-3, 3, 8, dtype="float32")[None]
    few, all_ = map(node.layer.activation, (values[:, :4], values))
    return few.shape[-1] == 4 and np.allclose(few, all_[:, :4])


def _is_depthwise_alone(node: Node) -> bool:
    return node.layer.depth_multiplier == 1 and _is_elementwise(node)


def _is_on_last_axis(node: Node) -> bool:
    return node.layer.axis in (-1, len(node.output_shape) - 1)


def _has_free_noise(node: Node) -> bool:
    return node.layer.noise_shape is None


def _has_known_size(node: Node) -> bool:
    return None not in node.input_shapes[0][1:]


# Layers that mix channels: which argument says how many they make.
_SIZES: dict[type, str] = {
    layers.Conv2D: "filters",
    layers.Dense: "units",
}

# Layers that may keep channels apart: whether one does.
_PASSES: dict[type, Callable[[Node], bool]] = {
    layers.Activation: _is_elementwise,
    layers.AveragePooling2D: _always,
    layers.BatchNormalization: _is_on_last_axis,
    layers.Cropping2D: _always,
    layers.DepthwiseConv2D: _is_depthwise_alone,
    layers.Dropout: _has_free_noise,
    layers.ELU: _always,
    layers.Flatten: _has_known_size,
    FusedBatchNormalization: _is_on_last_axis,
    layers.GlobalAveragePooling2D: _always,
    layers.GlobalMaxPooling2D: _always,
    layers.Identity: _always,
    layers.LeakyReLU: _always,
    layers.MaxPooling2D: _always,
    layers.ReLU: _always,
    layers.SpatialDropout2D: _always,
    layers.UpSampling2D: _always,
    layers.ZeroPadding2D: _always,
}

# How a layer's weights are selected, where not all by their last axis.
_SELECTIONS = {
    layers.Conv2D: _select_mixing,
    layers.Dense: _select_mixing,
    layers.DepthwiseConv2D: _select_depthwise,
}
