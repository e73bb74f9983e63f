"""Multiply-accumulates, weights and activations of each layer of a network.

For one image, and as published figures count them: a multiplication and the
addition behind it are one multiply-accumulate (MAC), also where a kernel hangs
over the border. Activation functions, biases, normalisation, pooling, padding
and the like count 0. Nothing is skipped in silence: a layer of another kind is
an error that tells how to give its count.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping

import keras

from keras_incremental.graphs.graph import Graph, Node
from keras_incremental.graphs.keras_names import VIEWS, WITHOUT_MACS

# Returns the MACs of one image, or None if they are not known.
Counter = Callable[[keras.layers.Layer, tuple, tuple], int | None]


@dataclasses.dataclass(frozen=True)
class NodeOperations:
    """What one call of one layer takes, for one image.

    Attributes:
        name: the layer's name.
        inputs: indices of the nodes whose outputs it reads.
        macs: multiply-accumulates of the forward pass.
        parameters: weights in use, normalisation statistics included.
        trainable_parameters: those that training would change, whether or not
            the layer is frozen at the moment.
        input_elements: values of each input.
        output_elements: values of the output, of all outputs if several.
        is_view: whether the layer hands its input on, unchanged or in another
            shape (Identity, Flatten, Reshape, ..., at inference Dropout).
        is_repeat: whether an earlier node is a call of the same layer, so that
            its weights are counted there already.
    """

    name: str
    inputs: tuple[int, ...]
    macs: int
    parameters: int
    trainable_parameters: int
    input_elements: tuple[int, ...]
    output_elements: int
    is_view: bool
    is_repeat: bool = False


def count_network(
    network: keras.Model, macs: Mapping | None = None
) -> tuple[NodeOperations, ...]:
    """Counts every layer of a network, nested models opened.

    The rules, with `K` the product of the kernel's sides:

    - convolution: output values x K x input channels / groups
    - transposed convolution: input values x K x filters
    - depthwise convolution: output values x K
    - separable convolution: the depthwise and the 1x1 convolution
    - dense: output values x input features
    - einsum dense: kernel values x the positions that it is applied to
    - multi-head self-attention of `(batch, tokens, dim)`: its projections and
      two products of `tokens**2` x head dimension for each head

    A subclass of a layer counts as that layer, unless `macs` holds it.

    Args:
        network: a built Functional or Sequential model with one input and one
            output, whose input shape is complete.
        macs: dict from a layer class, or from a layer's name, to a function
            `(layer, input_shapes, output_shape) -> int` that returns the MACs
            of one image. `input_shapes` is a tuple of shapes; the batch axis
            is first and None. They go before the rules.

    Returns:
        One entry for each node of `Graph(network).nodes`, in their order.

    Raises:
        TypeError: if `macs` is not such a dict.
        ValueError: if a shape is not complete, or the MACs of some layers are
            not known; all of them are named.

    >>> network = keras.Sequential([keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(16, 3), keras.layers.Flatten(),
    ...     keras.layers.Dense(10)])
    >>> [node.macs for node in count_network(network)]
    [0, 15552, 0, 5760]
    """
    nodes = Graph(network).nodes
    where = f"Network {network.name!r}"
    for node in nodes:
        _check_complete(node, where)
    seen: set[int] = set()
    counted = _count(nodes, macs, where)
    return tuple(
        _describe(node, node_macs, _is_repeat(node.layer, seen))
        for node, node_macs in zip(nodes, counted, strict=True)
    )


def count_node(node: Node, macs: Mapping | None = None) -> NodeOperations:
    """Counts one call of one layer, as `count_network` does.

    Args:
        node: a node of a `Graph`.
        macs: As for `count_network`.

    Raises:
        TypeError, ValueError: as `count_network`.

    >>> graph = Graph(keras.Sequential([keras.Input((8,)),
    ...     keras.layers.Dense(4)]))
    >>> operations = count_node(graph.nodes[1])
    >>> operations.macs, operations.parameters, operations.input_elements
    (32, 36, (8,))
    """
    _check_complete(node, "The network")
    (counted,) = _count([node], macs, "The network")
    return _describe(node, counted, is_repeat=False)


def elements(shape: tuple) -> int:
    """Returns the number of values of one image, the batch axis left out.

    >>> elements((None, 4, 4, 2))
    32
    """
    return math.prod(shape[1:])


def _is_repeat(layer, seen: set[int]) -> bool:
    """Whether a layer was met before; remembers it."""
    repeat = id(layer) in seen
    seen.add(id(layer))
    return repeat


def _describe(node: Node, macs: int, is_repeat: bool) -> NodeOperations:
    parameters = _parameters(node)
    tensors = [
        tensor
        for tensor in keras.tree.flatten(node.output)
        if isinstance(tensor, keras.KerasTensor)
    ]
    return NodeOperations(
        name=node.name,
        inputs=node.inputs,
        macs=macs,
        parameters=parameters,
        trainable_parameters=_trainable(node) if parameters else 0,
        input_elements=tuple(elements(shape) for shape in node.input_shapes),
        output_elements=sum(elements(tensor.shape) for tensor in tensors),
        is_view=_lookup(_IS_VIEW, type(node.layer)) is not None,
        is_repeat=is_repeat,
    )


def _check_complete(node: Node, where: str) -> None:
    shapes = (*node.input_shapes, node.output_shape)
    for shape in shapes:
        if None in shape[1:]:
            raise ValueError(
                f"{where} has a shape that is not complete, {shape} at layer "
                f"{node.name!r}: its operations cannot be counted. Give "
                "keras.Input a complete shape, such as (224, 224, 3), not "
                "(None, None, 3)."
            )


# Finding the rule of a layer.


def _count(nodes, macs: Mapping | None, where: str) -> list[int]:
    """The MACs of each node; all that are not known in one error."""
    given = _checked(macs)
    counted = [_macs(node, given) for node in nodes]
    unknown = {
        node.name: type(node.layer).__name__
        for node, node_macs in zip(nodes, counted, strict=True)
        if node_macs is None
    }
    if unknown:
        names = ", ".join(
            f"{name!r} ({kind})" for name, kind in unknown.items()
        )
        kind = next(iter(unknown.values()))
        raise ValueError(
            f"{where} has layers whose multiply-accumulates are not known: "
            f"{names}. Pass macs={{{kind}: function}}, its key a layer class "
            "or a layer's name, with function(layer, input_shapes, "
            "output_shape) -> int, the multiply-accumulates of one image; "
            "lambda *_: 0 for a layer that has none."
        )
    return counted


def _macs(node: Node, given: dict) -> int | None:
    count = given.get(node.name) or _lookup(
        {**_MACS, **given}, type(node.layer)
    )
    if count is None:
        return None
    macs = count(node.layer, node.input_shapes, node.output_shape)
    if macs is None:
        return None
    if isinstance(macs, numbers.Integral) and macs >= 0:
        return int(macs)
    raise ValueError(
        f"The function in macs for layer {node.name!r} "
        f"({type(node.layer).__name__}) returned {macs!r}; expected an int, "
        "0 or more, the multiply-accumulates of one image."
    )


def _checked(macs: Mapping | None) -> dict:
    if macs is None:
        return {}
    if not isinstance(macs, Mapping) or not all(
        isinstance(key, type | str) and callable(count)
        for key, count in macs.items()
    ):
        raise TypeError(
            f"macs={macs!r}; expected a dict from a layer class, or a layer's "
            "name, to a function(layer, input_shapes, output_shape) -> int."
        )
    return dict(macs)


def _lookup(table: Mapping, kind: type):
    """The entry of a class, or of the nearest class it derives from."""
    for parent in kind.__mro__:
        for key in (parent, _registered_name(parent)):
            if key in table:
                return table[key]
    return None


def _registered_name(kind: type) -> str:
    """`package>Name`; Keras' own are of package `keras`.

    So a layer of this package or an operation of `keras.ops`, whose class is
    not public, is known without an import.
    """
    if kind.__module__.partition(".")[0] == "keras":
        return f"keras>{kind.__name__}"
    return keras.saving.get_registered_name(kind)


# Weights.


def _parameters(node: Node) -> int:
    count = _lookup(_PARAMETERS, type(node.layer))
    if count is not None:
        return count(node)
    # An operation of `keras.ops` has no weights at all.
    return _size(getattr(node.layer, "weights", ()))


def _trainable(node: Node) -> int:
    """Trainable weights; of a frozen layer, those of an unfrozen copy."""
    layer, count = node.layer, _lookup(_PARAMETERS, type(node.layer))
    if count is not None:
        return count(node)
    if not layer.trainable:
        layer = type(layer).from_config(layer.get_config())
        layer.trainable = True
        layer.build_from_config(node.layer.get_build_config())
    return _size(layer.trainable_weights)


def _size(weights) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


def _columns_in_use(node: Node) -> int:
    """Kernel and bias of the units in use, not of the columns reserved."""
    return (node.input_shapes[0][-1] + 1) * node.layer.units


# The rules.


def _none(layer, input_shapes, output_shape):
    return 0


def _channels(layer, shape):
    return shape[1 if layer.data_format == "channels_first" else -1]


def _convolution(layer, input_shapes, output_shape):
    channels = _channels(layer, input_shapes[0]) // layer.groups
    return elements(output_shape) * math.prod(layer.kernel_size) * channels


def _transposed_convolution(layer, input_shapes, output_shape):
    kernel = math.prod(layer.kernel_size)
    return elements(input_shapes[0]) * kernel * layer.filters


def _depthwise_convolution(layer, input_shapes, output_shape):
    return elements(output_shape) * math.prod(layer.kernel_size)


def _separable_convolution(layer, input_shapes, output_shape):
    positions = elements(output_shape) // layer.filters
    middle = _channels(layer, input_shapes[0]) * layer.depth_multiplier
    return positions * middle * (math.prod(layer.kernel_size) + layer.filters)


def _dense(layer, input_shapes, output_shape):
    return elements(output_shape) * input_shapes[0][-1]


def _einsum_dense(layer, input_shapes, output_shape):
    left, result = layer.equation.replace(" ", "").split("->")
    source, kernel = left.split(",")
    if set(source) - set(kernel) - set(result):
        return None  # An axis of the input is summed without the kernel.
    size = dict(zip(kernel, layer.kernel.shape, strict=True))
    in_result = math.prod(size[axis] for axis in kernel if axis in result)
    positions = elements(output_shape) // in_result
    return math.prod(layer.kernel.shape) * positions


def _attention(layer, input_shapes, output_shape):
    query, config = input_shapes[0], layer.get_config()
    if len(query) != 3 or set(input_shapes) != {query} or config["use_gate"]:
        return None  # Cross-attention, a mask, images, or a gate.
    _, tokens, width = query
    keys = config["num_heads"] * config["key_dim"]
    values = config["num_heads"] * (config["value_dim"] or config["key_dim"])
    projections = width * (2 * keys + values) + values * output_shape[-1]
    return tokens * projections + tokens**2 * (keys + values)


_COUNTERS: dict[Counter, str] = {
    _convolution: "Conv1D Conv2D Conv3D",
    _transposed_convolution: "Conv1DTranspose Conv2DTranspose Conv3DTranspose",
    _depthwise_convolution: "DepthwiseConv1D DepthwiseConv2D",
    _separable_convolution: "SeparableConv1D SeparableConv2D",
    _dense: "Dense",
    _einsum_dense: "EinsumDense",
    _attention: "MultiHeadAttention",
    _none: """
        Activation ELU LeakyReLU PReLU ReLU Softmax
        BatchNormalization GroupNormalization LayerNormalization Normalization
        RMSNormalization UnitNormalization
        AdaptiveAveragePooling1D AdaptiveAveragePooling2D
        AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D
        AdaptiveMaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D
        GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
        GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
        MaxPooling1D MaxPooling2D MaxPooling3D
        Add Average Concatenate Maximum Minimum Multiply Subtract
        CenterCrop Cropping1D Cropping2D Cropping3D Flatten Identity InputLayer
        Permute RepeatVector Rescaling Reshape Resizing
        UpSampling1D UpSampling2D UpSampling3D
        ZeroPadding1D ZeroPadding2D ZeroPadding3D
        ActivityRegularization AlphaDropout Dropout GaussianDropout
        GaussianNoise Masking
        SpatialDropout1D SpatialDropout2D SpatialDropout3D
        RandomBrightness RandomContrast RandomCrop RandomFlip RandomRotation
        RandomTranslation RandomZoom
    """,
}


# Operations of `keras.ops`, and layers of `keras.applications`, by the names
# of their classes, which are not public: elementwise, pooling, or moving data.
def _keras_names(names: str) -> list[str]:
    return [f"keras>{name}" for name in names.split()]


_MACS: dict[str | type, Counter] = {
    **dict.fromkeys(_keras_names(WITHOUT_MACS), _none),
    **{
        getattr(keras.layers, name): count
        for count, names in _COUNTERS.items()
        for name in names.split()
    },
    "keras_incremental>ExpandableDense": _dense,
    "keras_incremental>ZeroPadShortcut": _none,
}
_IS_VIEW = dict.fromkeys(_keras_names(VIEWS), True)
_PARAMETERS = {"keras_incremental>ExpandableDense": _columns_in_use}
