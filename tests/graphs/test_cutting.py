"""Cuts by hand, against removing each tensor, and composed again."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_incremental as ki
from keras_incremental.graphs import Cut, Graph, find_cut, legal_cuts, split


def cut_names(network):
    return [cut.name for cut in legal_cuts(Graph(network))]


def chain(*stack, shape=(4,)):
    x = inputs = keras.Input(shape, name="x")
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x, name="net")


def residual_network():
    """Two residual blocks; weights of 20, 20, 20 and 15 parameters."""
    x = inputs = keras.Input((4,), name="x")
    x = layers.Dense(4, name="stem")(x)
    for block in ("one", "two"):
        inner = layers.Dense(4, name=f"{block}_dense")(x)
        inner = layers.ReLU(name=f"{block}_relu")(inner)
        x = layers.Add(name=f"{block}_add")([x, inner])
    x = layers.Dense(3, name="features")(x)
    return keras.Model(inputs, x, name="residual")


def images(network, count=2):
    shape = (count, *network.input_shape[1:])
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


def assert_composes(network, x, atol=1e-5, step=1):
    """Every legal cut gives a trunk and a tail that make up the network."""
    graph = Graph(network)
    whole = keras.ops.convert_to_numpy(network(x))
    cuts = legal_cuts(graph)
    for cut in cuts[::step]:
        trunk, tail = split(graph, cut)
        composed = keras.ops.convert_to_numpy(tail(trunk(x)))
        np.testing.assert_allclose(
            composed, whole, atol=atol, rtol=1e-5, err_msg=cut.name
        )
    return cuts


# Legal cuts.


def test_a_diamond_is_cut_before_and_behind():
    x = keras.Input((4,), name="x")
    stem = layers.Dense(4, name="stem")(x)
    left = layers.Dense(3, name="left")(stem)
    right = layers.Dense(3, name="right")(stem)
    y = layers.Add(name="join")([left, right])
    network = keras.Model(x, layers.ReLU(name="out")(y))
    assert cut_names(network) == ["x", "stem", "join", "out"]


def test_a_residual_network_is_cut_between_blocks():
    assert legal_cuts(Graph(residual_network())) == [
        Cut("x", 0, 0 / 4, 0 / 75),
        Cut("stem", 1, 1 / 4, 20 / 75),
        Cut("one_add", 4, 2 / 4, 40 / 75),
        Cut("two_add", 7, 3 / 4, 60 / 75),
        Cut("features", 8, 4 / 4, 75 / 75),
    ]


def test_a_skip_over_everything_leaves_the_ends():
    x = keras.Input((4,), name="x")
    y = layers.Dense(4, name="b")(layers.Dense(4, name="a")(x))
    network = keras.Model(x, layers.Add(name="sum")([x, y]))
    assert cut_names(network) == ["x", "sum"]


def test_a_chain_is_cut_everywhere_also_inside_nested_models():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="b"), layers.ReLU(name="c")]
    )
    network = chain(layers.Dense(4, name="a"), inner)
    assert cut_names(network) == ["x", "a", "b", "c"]


def test_no_cut_lies_between_two_calls_of_one_layer():
    shared = layers.Dense(4, name="shared")
    network = chain(
        layers.ReLU(name="a"),
        shared,
        layers.ReLU(name="b"),
        shared,
        layers.ReLU(name="c"),
    )
    assert cut_names(network) == ["x", "a", "shared", "c"]
    assert find_cut(Graph(network), "shared").index == 4


def test_several_outputs_of_one_layer_cannot_cross():
    x = keras.Input((6,), name="x")
    low, high = keras.ops.split(layers.Dense(6, name="a")(x), 2, axis=-1)
    y = layers.Concatenate(name="both")([high, low])
    network = keras.Model(x, layers.Dense(2, name="b")(y))
    assert cut_names(network) == ["x", "a", "both", "b"]


def test_one_of_several_outputs_can_be_the_networks():
    x = keras.Input((5, 3), name="x")
    x2 = layers.Dense(4, name="a")(x)
    _, hidden, _ = layers.LSTM(4, return_state=True, name="lstm")(x2)
    network = keras.Model(x, hidden)
    assert cut_names(network) == ["x", "a", "lstm"]
    assert find_cut(Graph(network), 1.0).name == "lstm"
    assert find_cut(Graph(network), 0.6).name == "lstm"
    assert_composes(network, images(network) / 255)


def test_parallel_calls_of_one_layer_do_not_hinder():
    shared = layers.Dense(4, name="shared")
    x = keras.Input((4,), name="x")
    one, two = shared(x), shared(layers.ReLU(name="relu")(x))
    y = layers.Add(name="sum")([one, two])
    network = keras.Model(x, layers.Dense(2, name="out")(y))
    graph = Graph(network)
    assert cut_names(network) == ["x", "sum", "out"]
    # The shared layer counts once.
    assert [cut.layers for cut in legal_cuts(graph)] == [0, 1 / 2, 1]
    assert [cut.parameters for cut in legal_cuts(graph)] == [0, 20 / 30, 1]


def test_only_layers_with_a_kernel_are_counted_and_all_parameters():
    network = chain(
        layers.BatchNormalization(name="norm"),
        layers.Dense(2, use_bias=False, name="a"),
        layers.Dense(1, name="b"),
    )
    cuts = legal_cuts(Graph(network))
    assert [cut.layers for cut in cuts] == [0, 0, 1 / 2, 1]
    assert [cut.parameters for cut in cuts] == [0, 16 / 27, 24 / 27, 1]


def test_a_network_without_weights_shares_nothing_everywhere():
    network = chain(layers.ReLU(name="a"), layers.ReLU(name="b"))
    cuts = legal_cuts(Graph(network))
    assert [(cut.layers, cut.parameters) for cut in cuts] == [(0, 0)] * 3


# Each node reads some of the nodes before it; nodes that nothing reads are
# added up at the end, so that all lead from the input to the output.


@st.composite
def graphs(draw):
    """Inputs of each node: indices before it; and the layer of each node."""
    size = draw(st.integers(1, 7))
    reads = [
        draw(
            st.lists(st.integers(0, node), min_size=1, max_size=2, unique=True)
        )
        for node in range(size)
    ]
    read = {index for node in reads for index in node}
    reads.append([node for node in range(size + 1) if node not in read])
    layer_of = [draw(st.integers(0, 9)) for _ in reads]
    return reads, layer_of


def network_of(reads, layer_of):
    """Nodes of one input are Dense layers, of which some may be shared."""
    tensors, shared = [keras.Input((2,), name="x")], {}
    for number, (node, key) in enumerate(zip(reads, layer_of, strict=True)):
        if len(node) > 1:
            layer = layers.Add(name=f"add{number}")
            tensors.append(layer([tensors[index] for index in node]))
        else:
            dense = layers.Dense(2, use_bias=False, name=f"dense{number}")
            layer = shared.setdefault(key, dense)
            tensors.append(layer(tensors[node[0]]))
    return keras.Model(tensors[0], tensors[-1])


def is_legal(graph, removed):
    """By walking all that can be reached without one tensor, step by step.

    Removing the tensor disconnects input and output; and no layer is called
    both before it and after it.
    """

    def reached(start, banned):
        found, steps = set(), [start]
        while steps:
            at = steps.pop()
            if at == banned or at in found:
                continue
            found.add(at)
            for index, node in enumerate(graph.nodes):
                if at in node.inputs:
                    steps.append(index)
        return found

    if graph.output_index in reached(0, removed):
        return False
    after = reached(removed, None) - {removed}
    called_after = {graph.nodes[index].name for index in after}
    called_before = {
        node.name
        for index, node in enumerate(graph.nodes)
        if index not in after
    }
    return not called_after & called_before


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_a_cut_is_legal_where_its_tensor_is_all_that_connects(drawn):
    reads, layer_of = drawn
    graph = Graph(network_of(reads, range(len(layer_of))))
    expected = [i for i in range(len(graph.nodes)) if is_legal(graph, i)]
    assert [cut.index for cut in legal_cuts(graph)] == expected


@settings(max_examples=15, deadline=None)
@given(graphs())
def test_shared_layers_lie_on_one_side_of_a_cut(drawn):
    graph = Graph(network_of(*drawn))
    expected = [i for i in range(len(graph.nodes)) if is_legal(graph, i)]
    assert [cut.index for cut in legal_cuts(graph)] == expected


@settings(max_examples=8, deadline=None)
@given(graphs())
def test_random_networks_compose_of_trunk_and_tail(drawn):
    network = network_of(*drawn)
    cuts = assert_composes(network, np.array([[1.0, -2.0]], "float32"))
    shares = [cut.layers for cut in cuts]
    assert shares == sorted(shares)
    parameters = [cut.parameters for cut in cuts]
    assert parameters == sorted(parameters)


# Finding a cut.


@pytest.mark.parametrize(
    ("fraction", "name"),
    [
        (0, "x"),
        (0.0, "x"),
        (0.01, "stem"),
        (0.25, "stem"),
        (0.26, "one_add"),
        (0.5, "one_add"),
        (np.float32(0.75), "two_add"),
        (0.76, "features"),
        (1, "features"),
        (1.0, "features"),
    ],
)
def test_a_fraction_takes_the_first_cut_that_shares_as_much(fraction, name):
    assert find_cut(Graph(residual_network()), fraction).name == name


def test_of_cuts_that_share_as_much_the_deepest_is_taken():
    network = chain(
        layers.ReLU(name="before"),
        layers.Dense(4, name="a"),
        layers.BatchNormalization(name="a_norm"),
        layers.ReLU(name="a_relu"),
        layers.Dense(4, name="b"),
        layers.ReLU(name="b_relu"),
        layers.Dropout(0.5, name="last"),
    )
    graph = Graph(network)
    assert find_cut(graph, 0.5).name == "a_relu"
    assert find_cut(graph, 0.51).name == "last"
    assert find_cut(graph, 1).name == "last"
    # Nothing is shared, not even layers without weights.
    assert find_cut(graph, 0).name == "x"


def test_any_fraction_of_no_weight_layers_is_all():
    network = chain(layers.ReLU(name="a"), layers.ReLU(name="b"))
    assert find_cut(Graph(network), 0.5).name == "b"
    assert find_cut(Graph(network), 0).name == "x"


def test_a_name_takes_its_layer():
    graph = Graph(residual_network())
    for cut in legal_cuts(graph)[:-1]:
        assert find_cut(graph, cut.name) == cut


@pytest.mark.parametrize("branch_at", [-0.01, 1.01, float("nan"), 2])
def test_fractions_out_of_range_are_refused(branch_at):
    with pytest.raises(ValueError, match=f"branch_at={branch_at}; .*between 0"):
        find_cut(Graph(residual_network()), branch_at)


@pytest.mark.parametrize("branch_at", [True, None, b"stem", [0.5]])
def test_other_types_are_refused(branch_at):
    with pytest.raises(TypeError, match="expected the name of a layer"):
        find_cut(Graph(residual_network()), branch_at)


def test_an_unknown_layer_is_answered_with_those_of_like_names():
    with pytest.raises(ValueError, match="has no layer of that name") as caught:
        find_cut(Graph(residual_network()), "one_ad")
    assert "'residual'" in str(caught.value)
    assert "['one_add'" in str(caught.value)


def test_an_unknown_layer_without_like_ones_is_answered_with_the_cuts():
    with pytest.raises(ValueError, match="has no layer of that name") as caught:
        find_cut(Graph(residual_network()), "qqq")
    assert str(["x", "stem", "one_add", "two_add", "features"]) in str(
        caught.value
    )


def test_the_last_layer_is_answered_with_the_way_out():
    with pytest.raises(ValueError, match="no layers after it") as caught:
        find_cut(Graph(residual_network()), "features")
    assert "branch_at=1.0" in str(caught.value)
    assert "'two_add'" in str(caught.value)


def test_a_layer_inside_a_block_is_answered_with_the_nearest_cuts():
    with pytest.raises(ValueError, match="more than one tensor") as caught:
        find_cut(Graph(residual_network()), "two_dense")
    # Node 5, between the cuts of nodes 4, 7 and 8.
    assert str(["one_add", "two_add", "features"]) in str(caught.value)


# Trunk and tail.


def test_the_parts_are_made_of_the_networks_own_layers():
    network = residual_network()
    graph = Graph(network)
    trunk, tail = split(graph, find_cut(graph, "one_add"))
    assert (trunk.name, tail.name) == ("residual_trunk", "residual_tail")
    assert [layer.name for layer in trunk.layers] == [
        "x", "stem", "one_dense", "one_relu", "one_add",
    ]  # fmt: skip
    assert [layer.name for layer in tail.layers][1:] == [
        "two_dense", "two_relu", "two_add", "features",
    ]  # fmt: skip
    for layer in (*trunk.layers[1:], *tail.layers[1:]):
        assert layer is network.get_layer(layer.name)
    network.get_layer("features").bias.assign([1.0, 2.0, 3.0])
    x = images(network)
    np.testing.assert_allclose(tail(trunk(x)), network(x), rtol=1e-5)


def test_before_all_layers_the_trunk_is_the_identity():
    network = residual_network()
    graph = Graph(network)
    trunk, tail = split(graph, find_cut(graph, 0))
    x = images(network)
    np.testing.assert_array_equal(trunk(x), x)
    assert not trunk.weights
    assert len(tail.weights) == len(network.weights)


def test_behind_all_layers_the_tail_is_the_identity():
    network = residual_network()
    graph = Graph(network)
    trunk, tail = split(graph, find_cut(graph, 1))
    features = trunk(images(network))
    np.testing.assert_array_equal(tail(features), features)
    assert tail.input_shape == tail.output_shape == (None, 3)
    assert not tail.weights
    assert len(trunk.weights) == len(network.weights)


def test_the_networks_own_outputs_do_not_change_by_cutting_it():
    network = residual_network()
    x, config = images(network), network.get_config()
    before = network(x).numpy()
    assert_composes(network, x)
    np.testing.assert_array_equal(network(x), before)
    assert network.get_config() == config
    assert keras.models.clone_model(network).count_params() == 75


def test_parts_are_trained_and_infer_as_the_whole():
    network = chain(
        layers.Dense(4, name="a"),
        layers.BatchNormalization(name="b"),
        layers.Dense(4, name="c"),
        layers.BatchNormalization(name="d"),
    )
    graph, x = Graph(network), images(network, 8)
    trunk, tail = split(graph, find_cut(graph, "b"))
    for training in (True, False):
        parts = tail(trunk(x, training=training), training=training)
        whole = network(x, training=training)
        np.testing.assert_allclose(parts, whole, atol=1e-4)
    assert np.abs(network(x, training=True) - network(x)).max() > 1


@pytest.mark.parametrize(
    ("build", "step"),
    [
        (lambda: ki.backbones.small((8, 8, 1)), 1),
        (lambda: ki.backbones.resnet20((8, 8, 3)), 5),
    ],
    ids=["small", "resnet20"],
)
def test_our_backbones_compose_at_their_cuts(build, step):
    network = build()
    cuts = assert_composes(network, images(network), step=step)
    assert len(cuts) > 4
    assert (cuts[0].layers, cuts[-1].layers) == (0, 1)


def test_mixed_precision_composes():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = residual_network()
        for cut in legal_cuts(Graph(network)):
            trunk, tail = split(Graph(network), cut)
            x = images(network) / 255
            assert tail(trunk(x)).dtype == "bfloat16"
            # Another network may round elsewhere; a bfloat16 has 8 bits.
            np.testing.assert_allclose(
                np.asarray(tail(trunk(x)), "float32"),
                np.asarray(network(x), "float32"),
                rtol=2**-6,
                atol=2**-6,
            )
    finally:
        keras.config.set_dtype_policy("float32")


# Networks of keras.applications.


def application(name, **options):
    build = getattr(keras.applications, name)
    return build(
        weights=None, include_top=False, input_shape=(32, 32, 3), **options
    )


def randomize_statistics(network):
    """So that each batch normalisation computes something of its own."""
    random = np.random.default_rng(0)
    for weight in network.weights:
        if weight.path.endswith("moving_variance"):
            weight.assign(random.uniform(0.5, 2, weight.shape))
        elif weight.path.endswith(("moving_mean", "beta")):
            weight.assign(random.normal(0, 0.1, weight.shape))


def inverted_residual(x, width, strides, name):
    """A block of MobileNetV2, with a skip where the shape is kept."""
    inner = layers.Conv2D(12, 1, use_bias=False, name=f"{name}_expand")(x)
    inner = layers.BatchNormalization(name=f"{name}_expand_norm")(inner)
    inner = layers.ReLU(6.0, name=f"{name}_relu")(inner)
    inner = layers.DepthwiseConv2D(
        3, strides, "same", use_bias=False, name=f"{name}_depthwise"
    )(inner)
    inner = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_out")(inner)
    inner = layers.BatchNormalization(name=f"{name}_norm")(inner)
    if inner.shape != x.shape:
        return inner
    return layers.Add(name=f"{name}_add")([x, inner])


def test_a_network_like_mobilenet_composes_at_every_cut():
    x = image = keras.Input((32, 32, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="scale")(x)
    x = layers.Conv2D(4, 3, 2, "same", name="stem")(x)
    x = inverted_residual(x, 4, 1, "one")
    x = inverted_residual(x, 6, 2, "two")
    x = inverted_residual(x, 6, 1, "three")
    x = layers.GlobalAveragePooling2D(name="features")(x)
    network = keras.Model(image, x)
    randomize_statistics(network)
    cuts = assert_composes(network, images(network))
    assert [cut.name for cut in cuts] == [
        "image", "scale", "stem", "one_add", "two_expand", "two_expand_norm",
        "two_relu", "two_depthwise", "two_out", "two_norm", "three_add",
        "features",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def mobilenet():
    """MobileNetV2 of the smallest width; tests leave it as it is."""
    network = application("MobileNetV2", alpha=0.35)
    randomize_statistics(network)
    return network


@pytest.mark.slow
def test_mobilenet_composes_at_its_cuts(mobilenet):
    x = images(mobilenet) / 255
    cuts = assert_composes(mobilenet, x, atol=1e-4, step=20)
    assert len(cuts) > 50
    names = [cut.name for cut in cuts]
    assert "block_1_project_BN" in names  # No skip around the first block.
    assert "block_2_expand_relu" not in names  # Within a residual block.
    assert "block_2_add" in names


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EfficientNetB0", "ResNet50", "DenseNet121"])
def test_a_classifier_of_a_large_keras_application_can_be_cut(name):
    network = application(name)
    randomize_statistics(network)
    assert_classifier_can_be_cut(network)


@pytest.mark.slow
def test_a_classifier_of_a_keras_application_can_be_cut(mobilenet):
    assert_classifier_can_be_cut(mobilenet)


def assert_classifier_can_be_cut(network):
    model = ki.IncrementalClassifier(network, branch_at=0.5)
    cut = model.network
    assert 0.5 <= cut.shared_layers < 0.8
    x = images(network)
    parts = cut.tail(cut.trunk(x, training=False), training=False).numpy()
    whole = model.backbone(x, training=False).numpy()
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-4)
    pooled = network(x, training=False).numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(parts, pooled, rtol=1e-4, atol=1e-4)
    assert np.ptp(parts) > 0
    own = {id(weight) for weight in network.weights}
    shared = {id(weight) for weight in cut.trunk.weights}
    later = {id(weight) for weight in cut.tail.weights}
    assert not shared & later and shared | later == own
