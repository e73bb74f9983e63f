"""Multiply-accumulates, weights and activations of each layer of a network.

For one image, and as published figures count them: a multiplication and the
addition behind it are one multiply-accumulate (MAC), also where a kernel hangs
over the border. They are read from the operations that TensorFlow runs, so that
any layer is known: convolutions and matrix products count, all others
(activation functions, biases, normalisation, pooling, padding and the like)
count 0.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from keras_incremental.graphs.graph import Graph, Node


@dataclasses.dataclass(frozen=True)
class NodeOperations:
    """What one call of one layer takes, for one image.

    Attributes:
        name: the layer's name.
        inputs: indices of the nodes whose outputs it reads.
        macs: multiply-accumulates of the forward pass.
        parameters: weights, normalisation statistics included.
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


def count_network(network: keras.Model) -> tuple[NodeOperations, ...]:
    """Counts every layer of a network, nested models opened.

    The rules, with `K` the product of the kernel's sides:

    - convolution: output values x K x input channels / groups
    - transposed convolution: input values x K x filters
    - depthwise convolution: output values x K
    - matrix product, dense layers and `einsum` of two tensors: output values x
      the size of the axes that are summed

    Args:
        network: a built Functional or Sequential model with one input and one
            output, whose input shape is complete.

    Returns:
        One entry for each node of `Graph(network).nodes`, in their order.

    Raises:
        ValueError: if a shape is not complete, or a layer runs a loop or a
            condition, whose operations are not known.

    >>> network = keras.Sequential([keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(16, 3), keras.layers.Flatten(),
    ...     keras.layers.Dense(10)])
    >>> [node.macs for node in count_network(network)]
    [0, 15552, 0, 5760]
    """
    nodes = Graph(network).nodes
    for node in nodes:
        _check_complete(node, network.name)
    first_call = {id(node.layer): node for node in reversed(nodes)}
    return tuple(
        _describe(node, operations, node is not first_call[id(node.layer)])
        for node, operations in zip(nodes, _traced(nodes), strict=True)
    )


def elements(shape: Sequence) -> int:
    """Returns the number of values of one image, the batch axis left out.

    >>> elements((None, 4, 4, 2))
    32
    """
    return math.prod(shape[1:])


def _describe(node: Node, operations, is_repeat: bool) -> NodeOperations:
    tensors = [
        tensor
        for tensor in keras.tree.flatten(node.output)
        if isinstance(tensor, keras.KerasTensor)
    ]
    return NodeOperations(
        name=node.name,
        inputs=node.inputs,
        macs=sum(_macs(operation, node.name) for operation in operations),
        # An operation of `keras.ops` has no weights at all.
        parameters=_size(getattr(node.layer, "weights", ())),
        trainable_parameters=_trainable(node.layer),
        input_elements=tuple(elements(shape) for shape in node.input_shapes),
        output_elements=sum(elements(tensor.shape) for tensor in tensors),
        is_view=all(operation.type in _VIEWS for operation in operations),
        is_repeat=is_repeat,
    )


def _check_complete(node: Node, name: str) -> None:
    shapes = (*node.input_shapes, node.output_shape)
    for shape in shapes:
        if None in shape[1:]:
            raise ValueError(
                f"Network {name!r} has a shape that is not complete, {shape} "
                f"at layer {node.name!r}: its operations cannot be counted. "
                "Give keras.Input a complete shape, such as (224, 224, 3), not "
                "(None, None, 3)."
            )


def _traced(nodes: Sequence[Node]) -> list[list[tf.Operation]]:
    """Returns the operations that TensorFlow runs for each node, one image."""
    traced: list[list[tf.Operation]] = []

    def run(image):
        graph = tf.compat.v1.get_default_graph()
        values = {id(nodes[0].output): image}

        def value_of(leaf):
            return values.get(id(leaf), leaf)

        for node in nodes:
            first = len(graph.get_operations())
            if node.inputs:
                args, kwargs = keras.tree.map_structure(
                    value_of, node.arguments
                )
                outputs = keras.tree.flatten(node.layer(*args, **kwargs))
                symbols = keras.tree.flatten(node.output)
                values.update(zip(map(id, symbols), outputs, strict=True))
            traced.append(_opened(graph, graph.get_operations()[first:]))

    source = nodes[0].output
    image = tf.TensorSpec((1, *source.shape[1:]), source.dtype)
    tf.function(run, autograph=False).get_concrete_function(image)
    return traced


def _opened(graph, operations) -> list[tf.Operation]:
    """Returns operations with those of a function in place of its call."""
    opened = []
    for operation in operations:
        if operation.type in _CALLS:
            name = operation.get_attr("f").name
            body = graph._get_function(name).graph
            opened += _opened(body, body.get_operations())
        else:
            opened.append(operation)
    return opened


def _trainable(layer) -> int:
    """Trainable weights; of a frozen layer, those of an unfrozen copy."""
    if getattr(layer, "weights", ()) and not layer.trainable:
        copy = type(layer).from_config(layer.get_config())
        copy.trainable = True
        copy.build_from_config(layer.get_build_config())
        layer = copy
    return _size(getattr(layer, "trainable_weights", ()))


def _size(weights) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


# The rules.


def _macs(operation: tf.Operation, name: str) -> int:
    if operation.type in _NOT_KNOWN:
        raise ValueError(
            f"The layer {name!r} runs a loop or a condition "
            f"({operation.type}), whose multiply-accumulates are not known. "
            "Count a network without it."
        )
    count = _RULES.get(operation.type)
    return count(operation) if count else 0


def _convolution(operation) -> int:
    *kernel, _ = operation.inputs[1].shape
    return math.prod(operation.outputs[0].shape) * math.prod(kernel)


def _transposed_convolution(operation) -> int:
    *kernel, _ = operation.inputs[1].shape
    return math.prod(operation.inputs[2].shape) * math.prod(kernel)


def _depthwise_convolution(operation) -> int:
    height, width, *_ = operation.inputs[1].shape
    return math.prod(operation.outputs[0].shape) * height * width


def _matrix_product(operation) -> int:
    is_dense = operation.type == "MatMul"
    transposed = operation.get_attr("transpose_a" if is_dense else "adj_x")
    summed = operation.inputs[0].shape[-2 if transposed else -1]
    return math.prod(operation.outputs[0].shape) * summed


def _einsum(operation) -> int:
    left, kept = operation.get_attr("equation").decode().split("->")
    sizes = {}
    for labels, tensor in zip(left.split(","), operation.inputs, strict=True):
        before, _, after = labels.partition("...")
        shape = tensor.shape
        sizes |= zip(before, shape, strict=False)
        sizes |= zip(reversed(after), reversed(shape), strict=False)
    summed = math.prod(sizes[label] for label in sizes if label not in kept)
    return math.prod(operation.outputs[0].shape) * summed


_RULES: dict[str, Callable[[tf.Operation], int]] = {
    "BatchMatMulV2": _matrix_product,
    "Conv2D": _convolution,
    "Conv2DBackpropInput": _transposed_convolution,
    "Conv3D": _convolution,
    "Conv3DBackpropInputV2": _transposed_convolution,
    "DepthwiseConv2dNative": _depthwise_convolution,
    "Einsum": _einsum,
    "MatMul": _matrix_product,
}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_NOT_KNOWN = {"Case", "If", "StatelessIf", "StatelessWhile", "While"}
# An output of these is the input, in another shape perhaps.
_VIEWS = {
    "Const",
    "ExpandDims",
    "Identity",
    "Placeholder",
    "Reshape",
    "Squeeze",
    "StopGradient",
}
