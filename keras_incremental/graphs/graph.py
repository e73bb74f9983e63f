"""The graph of a Keras network as a list of calls, nested models opened."""

import dataclasses

import keras


@dataclasses.dataclass(frozen=True)
class Node:
    """One call of one layer.

    Attributes:
        layer: a Keras layer, or an operation of `keras.ops`.
        inputs: indices of the nodes whose outputs it reads.
        arguments: what it is called with, Keras tensors included.
        input_shapes: shape of each of them, batch axis first.
        output_shape: batch axis first; of the first output, if several.
        output: the Keras tensor, or a structure of them.
    """

    layer: keras.layers.Layer
    inputs: tuple[int, ...]
    arguments: tuple[tuple, dict]
    input_shapes: tuple[tuple, ...]
    output_shape: tuple
    output: object

    @property
    def name(self) -> str:
        """The name of the layer."""
        return self.layer.name


class Graph:
    """The calls of a Functional or Sequential network, each after its inputs.

    Node 0 is the input. Nested Functional and Sequential models are opened, so
    that their layers are nodes. The layers are the network's own; they are
    called once more, on symbolic tensors.

    Args:
        network: a built model with one input and one output.

    Raises:
        ValueError: if two layers, one of them in a nested model, have the same
            name.

    >>> inputs = keras.Input((8,))
    >>> outputs = keras.layers.Dense(4, name="dense")(inputs)
    >>> graph = Graph(keras.Model(inputs, outputs))
    >>> graph.nodes[1].name, graph.nodes[1].inputs, graph.output_index
    ('dense', (0,), 1)
    """

    def __init__(self, network: keras.Model):
        self.network_name = network.name
        source = network.inputs[0]
        layer = keras.layers.InputLayer(
            source.shape[1:], dtype=source.dtype, name=source.name
        )
        self.input = layer.output
        self._index_of_tensor: dict[int, int] = {}
        self._index_of_name: dict[str, int] = {}
        self.nodes: list[Node] = []
        self._add(layer, ((), {}), self.input)
        self.output = keras.tree.flatten(self._replay(network, self.input))[0]
        self.output_index = self._index_of_tensor[id(self.output)]
        self._check_names()

    def index(self, name: str) -> int:
        """Returns the node of the layer of this name, its last call.

        Raises:
            KeyError: if there is none.
        """
        return self._index_of_name[name]

    def readers(self) -> list[list[int]]:
        """Returns, for each node, the nodes that read its output."""
        readers: list[list[int]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for read in dict.fromkeys(node.inputs):
                readers[read].append(index)
        return readers

    def _replay(self, network, inputs):
        if isinstance(network, keras.Sequential):
            network = keras.Model(network.inputs, network.outputs)
        structure = keras.tree.pack_sequence_as(
            network.input, keras.tree.flatten(inputs)
        )
        # Private. The public way, `clone_model` with a `call_function`, gives a
        # nested model outputs cut off from the inputs that it was called on.
        return network._run_through_graph(
            structure, operation_fn=lambda layer: layer, call_fn=self._call
        )

    def _call(self, layer, *args, **kwargs):
        # A nested model whose own layers can be seen is opened.
        if isinstance(layer, keras.Model) and getattr(layer, "inputs", None):
            return self._replay(layer, args[0] if args else kwargs["inputs"])
        output = layer(*args, **kwargs)
        self._add(layer, (args, kwargs), output)
        return output

    def _add(self, layer, arguments, output) -> None:
        read = [
            tensor
            for tensor in keras.tree.flatten(arguments)
            if isinstance(tensor, keras.KerasTensor)
        ]
        outputs = keras.tree.flatten(output)
        self._index_of_name[layer.name] = len(self.nodes)
        for tensor in outputs:
            self._index_of_tensor[id(tensor)] = len(self.nodes)
        self.nodes.append(
            Node(
                layer,
                tuple(self._index_of_tensor[id(tensor)] for tensor in read),
                arguments,
                tuple(tuple(tensor.shape) for tensor in read),
                tuple(outputs[0].shape),
                output,
            )
        )

    def _check_names(self) -> None:
        for node in self.nodes:
            if self.nodes[self.index(node.name)].layer is not node.layer:
                raise ValueError(
                    f"Two layers of {self.network_name!r}, nested models "
                    f"included, are named {node.name!r}; a branch point would "
                    "be ambiguous. Give each layer a name of its own."
                )
