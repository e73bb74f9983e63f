"""Graph: what is called on what, nested models opened."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_incremental.graphs import Graph


def names(graph):
    return [node.name for node in graph.nodes]


def inputs(graph):
    return [node.inputs for node in graph.nodes]


def replayed(graph):
    """The network of the graph's own tensors."""
    return keras.Model(graph.input, graph.output)


def assert_computes_as(graph, network):
    """The nodes' outputs hang together, and compute what the network does."""
    shape = (3, *network.input_shape[1:])
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    # Another network may add up in another order.
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(replayed(graph)(x)),
        keras.ops.convert_to_numpy(keras.tree.flatten(network(x))[0]),
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_diamond_is_listed_call_by_call():
    x = keras.Input((4, 4, 2), name="image")
    left = layers.Conv2D(3, 3, padding="same", name="left")(x)
    right = layers.Conv2D(3, 1, name="right")(x)
    y = layers.Add(name="add")([left, right])
    network = keras.Model(x, layers.Flatten(name="flat")(y), name="diamond")
    graph = Graph(network)
    assert graph.network_name == "diamond"
    assert names(graph) == ["image", "left", "right", "add", "flat"]
    assert inputs(graph) == [(), (0,), (0,), (1, 2), (3,)]
    assert graph.readers() == [[1, 2], [3], [3], [4], []]
    assert graph.output_index == 4
    add = graph.nodes[3]
    assert add.input_shapes == ((None, 4, 4, 3), (None, 4, 4, 3))
    assert add.output_shape == (None, 4, 4, 3)
    assert graph.nodes[4].output is graph.output
    assert graph.nodes[0].output is graph.input
    assert graph.nodes[0].input_shapes == ()
    assert_computes_as(graph, network)


def test_the_layers_are_the_networks_own_and_it_does_not_change():
    network = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.ReLU()], name="net"
    )
    before = (network.get_config(), list(network.layers), network.outputs[0])
    graph = Graph(network)
    assert [node.layer for node in graph.nodes[1:]] == network.layers
    assert (network.get_config(), list(network.layers)) == before[:2]
    assert network.outputs[0] is before[2]
    variables = {id(weight) for weight in replayed(graph).weights}
    assert variables == {id(weight) for weight in network.weights}


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_input_keeps_name_shape_and_dtype(dtype):
    x = keras.Input((None, None, 3), dtype=dtype, name="photo")
    graph = Graph(keras.Model(x, layers.Rescaling(1 / 255)(x)))
    assert graph.nodes[0].name == "photo"
    assert graph.input.shape == (None, None, None, 3)
    assert graph.input.dtype == dtype


def test_nested_models_of_both_kinds_are_opened():
    a = keras.Input((4,))
    deepest = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, name="c")], name="deepest"
    )
    functional = keras.Model(a, deepest(layers.ReLU(name="b")(a)), name="inner")
    network = keras.Sequential(
        [
            keras.Input((6,), name="x"),
            layers.Dense(4, name="a"),
            functional,
            layers.Dense(2, name="d"),
        ]
    )
    graph = Graph(network)
    assert names(graph) == ["x", "a", "b", "c", "d"]
    assert inputs(graph) == [(), (0,), (1,), (2,), (3,)]
    assert graph.nodes[3].layer is deepest.layers[0]
    assert_computes_as(graph, network)


def test_a_nested_model_called_by_keyword_is_opened():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a")])
    x = keras.Input((4,), name="x")
    network = keras.Model(x, layers.ReLU(name="b")(inner(inputs=x)))
    graph = Graph(network)
    assert names(graph) == ["x", "a", "b"]
    assert_computes_as(graph, network)


def test_a_nested_model_of_several_inputs_and_outputs_is_opened():
    one, two = keras.Input((4,)), keras.Input((4,))
    total = layers.Add(name="add")([one, two])
    product = layers.Multiply(name="multiply")([one, two])
    inner = keras.Model([one, two], [total, product])
    x = keras.Input((4,), name="x")
    y = layers.Dense(4, name="a")(x)
    total, product = inner([x, y])
    outputs = layers.Concatenate(name="both")([total, product])
    network = keras.Model(x, outputs)
    graph = Graph(network)
    add, multiply = graph.index("add"), graph.index("multiply")
    assert {add, multiply} == {2, 3}
    assert graph.nodes[add].inputs == graph.nodes[multiply].inputs == (0, 1)
    assert graph.nodes[4].inputs == (add, multiply)
    assert len(graph.nodes) == 5
    assert_computes_as(graph, network)


def test_a_nested_model_called_twice_is_opened_twice():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a")], name="inner"
    )
    x = keras.Input((4,), name="x")
    network = keras.Model(x, inner(layers.ReLU(name="b")(inner(x))))
    graph = Graph(network)
    assert names(graph) == ["x", "a", "b", "a"]
    assert graph.nodes[1].layer is graph.nodes[3].layer
    assert_computes_as(graph, network)


def test_a_shared_layer_is_a_node_for_each_call_and_found_by_its_last():
    shared = layers.Dense(4, name="shared")
    x = keras.Input((4,), name="x")
    first = shared(x)
    last = shared(layers.ReLU(name="relu")(first))
    network = keras.Model(x, layers.Add(name="add")([first, last]))
    graph = Graph(network)
    assert names(graph) == ["x", "shared", "relu", "shared", "add"]
    assert inputs(graph) == [(), (0,), (1,), (2,), (1, 3)]
    assert graph.index("shared") == 3
    assert graph.index("x") == 0
    assert_computes_as(graph, network)


def test_an_unknown_name_is_a_key_error():
    graph = Graph(keras.Sequential([keras.Input((4,)), layers.ReLU()]))
    with pytest.raises(KeyError, match="missing"):
        graph.index("missing")


def test_a_tensor_read_twice_has_one_reader():
    x = keras.Input((4,), name="x")
    graph = Graph(keras.Model(x, layers.Add(name="twice")([x, x])))
    assert graph.nodes[1].inputs == (0, 0)
    assert graph.readers() == [[1], []]


def test_operations_of_keras_ops_are_nodes():
    x = keras.Input((4,), name="x")
    y = keras.ops.relu(2 * x) + x
    network = keras.Model(x, keras.ops.mean(y, axis=-1, keepdims=True))
    graph = Graph(network)
    kinds = [type(node.layer).__name__ for node in graph.nodes[1:]]
    assert kinds == ["Multiply", "Relu", "Add", "Mean"]
    assert inputs(graph) == [(), (0,), (1,), (2, 0), (3,)]
    assert graph.nodes[-1].output_shape == (None, 1)
    assert_computes_as(graph, network)


def test_keyword_tensors_and_plain_arguments_are_passed_on():
    class Weighted(layers.Layer):
        def call(self, x, factor=1.0, other=None):
            return factor * x + other

    x = keras.Input((4,), name="x")
    y = layers.ReLU(name="y")(x)
    network = keras.Model(x, Weighted(name="w")(x, factor=3.0, other=y))
    graph = Graph(network)
    assert graph.nodes[2].inputs == (0, 1)
    assert_computes_as(graph, network)


def test_a_layer_of_several_outputs_is_one_node():
    x = keras.Input((6,), name="x")
    low, high = keras.ops.split(x, [2], axis=-1)
    both = layers.Concatenate(name="both")([high, low])
    network = keras.Model(x, both)
    graph = Graph(network)
    assert inputs(graph) == [(), (0,), (1, 1)]
    split = graph.nodes[1]
    assert [tuple(tensor.shape) for tensor in split.output] == [
        (None, 2),
        (None, 4),
    ]
    assert split.output_shape == (None, 2)
    assert graph.nodes[2].input_shapes == ((None, 4), (None, 2))
    assert_computes_as(graph, network)


def test_the_output_may_be_one_of_several_of_a_layer():
    x = keras.Input((5, 3), name="x")
    lstm = layers.LSTM(4, return_state=True, name="lstm")
    _, hidden, _ = lstm(x)
    network = keras.Model(x, hidden)
    graph = Graph(network)
    assert names(graph) == ["x", "lstm"]
    assert graph.output_index == 1
    assert graph.output is graph.nodes[1].output[1]
    assert_computes_as(graph, network)


def test_outputs_may_be_a_list_or_a_dict():
    x = keras.Input((4,), name="x")
    y = layers.Dense(3, name="y")(x)
    for network in (keras.Model(x, [y]), keras.Model({"x": x}, {"y": y})):
        graph = Graph(network)
        assert names(graph) == ["x", "y"]
        assert graph.output_index == 1
        assert graph.output.shape == (None, 3)


def test_an_input_that_is_the_output_is_the_only_node():
    x = keras.Input((4,), name="x")
    graph = Graph(keras.Model(x, x))
    assert names(graph) == ["x"]
    assert graph.output_index == 0


def test_two_layers_of_one_name_are_refused():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="same")], name="inner"
    )
    network = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="same"), inner], name="outer"
    )
    with pytest.raises(ValueError, match=r"'outer'.*named 'same'"):
        Graph(network)


def test_a_layer_named_as_the_input_is_refused():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="image")], name="inner"
    )
    x = keras.Input((4,), name="image")
    with pytest.raises(ValueError, match="named 'image'"):
        Graph(keras.Model(x, inner(x)))


def test_a_layer_may_be_named_as_a_nested_model():
    """A nested model is opened, and is no node itself."""
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="b")], name="a"
    )
    deep = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a")], name="b"
    )
    network = keras.Sequential([keras.Input((4,), name="x"), inner, deep])
    assert names(Graph(network)) == ["x", "b", "a"]
