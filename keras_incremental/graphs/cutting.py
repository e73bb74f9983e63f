"""Where a network can be cut in two, and the cut itself."""

import dataclasses
import difflib
import math
import numbers

import keras

from keras_incremental.graphs.graph import Graph

_NEAREST = 3


@dataclasses.dataclass(frozen=True)
class Cut:
    """A place that a single tensor crosses.

    Attributes:
        name: the layer whose output crosses; the input's name for the cut
            before all layers.
        index: its node in the graph.
        layers: share of the weight layers before the cut, 0 to 1. Weight
            layers have a kernel: convolutions and dense layers, as papers
            count the layers of a network.
        parameters: share of the parameters before the cut, 0 to 1.
    """

    name: str
    index: int
    layers: float
    parameters: float


def legal_cuts(graph: Graph) -> list[Cut]:
    """Returns the cuts that a single tensor crosses, from input to output.

    No layer may be called on both sides, for one side is frozen.

    >>> import keras_incremental as ki
    >>> [cut.name for cut in legal_cuts(Graph(ki.backbones.small()))][-3:]
    ['stage3_block1_out', 'stage3', 'features']
    """
    after = _descendants(graph)
    kernels, parameters = _weights_before(graph, after)
    return [
        Cut(
            node.name,
            index,
            _share(kernels[index], kernels[graph.output_index]),
            _share(parameters[index], parameters[graph.output_index]),
        )
        for index, node in enumerate(graph.nodes)
        if _is_legal(graph, index, after[index])
    ]


def find_cut(graph: Graph, branch_at: str | float) -> Cut:
    """Returns the cut at a named layer, or the first that shares enough.

    A fraction takes the least share of weight layers that is no smaller, and
    of several cuts with that share the last, which leaves a branch the least
    to do.

    Args:
        graph: The network's graph.
        branch_at: a layer's name, or a fraction: 0 shares nothing, 1 all.

    Raises:
        TypeError: for another type.
        ValueError: for a layer that does not exist, has no layers after it,
            or where several tensors cross, with the nearest legal cuts; for a
            fraction out of range.
    """
    if isinstance(branch_at, str):
        return _named_cut(graph, branch_at)
    if isinstance(branch_at, bool) or not isinstance(branch_at, numbers.Real):
        raise TypeError(
            f"branch_at={branch_at!r}; expected the name of a layer, or a "
            "fraction of the layers between 0 (share nothing) and 1 (share "
            "all but the classifier)."
        )
    if not 0 <= branch_at <= 1:
        raise ValueError(
            f"branch_at={branch_at}; expected a fraction of the layers "
            "between 0 (share nothing) and 1 (share all but the classifier)."
        )
    cuts = legal_cuts(graph)
    if branch_at == 0:
        return cuts[0]
    # A network without weight layers has no share but 0.
    enough = [cut.layers for cut in cuts if cut.layers >= branch_at]
    share = min(enough, default=0.0)
    return [cut for cut in cuts if cut.layers == share][-1]


def split(graph: Graph, cut: Cut) -> tuple[keras.Model, keras.Model]:
    """Returns the network before a cut and the network after it.

    Both use the layers of the network itself. Where nothing is before the
    cut, or nothing after it, that part is the identity.

    >>> import keras_incremental as ki
    >>> graph = Graph(ki.backbones.small((8, 8, 1)))
    >>> trunk, tail = split(graph, find_cut(graph, "stage2"))
    >>> trunk.output_shape, tail.output_shape
    ((None, 4, 4, 64), (None, 64))
    """
    name = graph.network_name
    shares_all = cut.index == graph.output_index
    crossing = graph.output if shares_all else graph.nodes[cut.index].output
    trunk = keras.Model(graph.input, crossing, name=f"{name}_trunk")
    if shares_all:
        source = keras.Input(crossing.shape[1:], dtype=crossing.dtype)
        same = keras.layers.Identity(name="trunk_outputs")(source)
        return trunk, keras.Model(source, same, name=f"{name}_tail")
    return trunk, keras.Model(crossing, graph.output, name=f"{name}_tail")


def _named_cut(graph: Graph, name: str) -> Cut:
    cuts = legal_cuts(graph)
    names = [node.name for node in graph.nodes]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=_NEAREST)
        near = close or [cut.name for cut in cuts]
        raise ValueError(
            f"branch_at={name!r}: {graph.network_name!r} has no layer of that "
            f"name; it has, for example, {near}."
        )
    index = graph.index(name)
    if index == graph.output_index:
        raise ValueError(
            f"branch_at={name!r} has no layers after it to make a branch of. "
            "For a new classifier on frozen features pass branch_at=1.0; for "
            f"branches name an earlier layer, such as {cuts[-2].name!r}."
        )
    for cut in cuts:
        if cut.index == index:
            return cut
    cuts.sort(key=lambda cut: abs(cut.index - index))
    nearest = [cut.name for cut in cuts[:_NEAREST]]
    raise ValueError(
        f"branch_at={name!r}: more than one tensor crosses there, or a layer "
        "is called before and after it, so the network cannot be cut. The "
        f"nearest legal cuts are {nearest}."
    )


def _descendants(graph: Graph) -> list[set[int]]:
    """For each node, the nodes that depend on it."""
    after: list[set[int]] = [set() for _ in graph.nodes]
    readers = graph.readers()
    for index in reversed(range(len(graph.nodes))):
        for reader in readers[index]:
            after[index] |= {reader} | after[reader]
    return after


def _is_legal(graph: Graph, index: int, after: set[int]) -> bool:
    if index == graph.output_index:
        return True
    is_tensor = isinstance(graph.nodes[index].output, keras.KerasTensor)
    if not is_tensor or graph.output_index not in after:
        return False
    read = {i for position in after for i in graph.nodes[position].inputs}
    layers_after = {id(graph.nodes[position].layer) for position in after}
    return read - after == {index} and layers_after.isdisjoint(
        id(node.layer)
        for position, node in enumerate(graph.nodes)
        if position not in after
    )


def _weights_before(graph: Graph, after: list[set[int]]):
    """Weight layers and parameters that do not depend on each node."""
    kernels, parameters = [], []
    for descendants in after:
        layers = {
            id(node.layer): node.layer
            for position, node in enumerate(graph.nodes)
            if position not in descendants
        }.values()
        kernels.append(sum(map(_has_kernel, layers)))
        parameters.append(sum(map(_parameters, layers)))
    return kernels, parameters


def _has_kernel(layer) -> bool:
    weights = getattr(layer, "weights", ())
    return any(len(weight.shape) > 1 for weight in weights)


def _parameters(layer) -> int:
    weights = getattr(layer, "weights", ())
    return sum(math.prod(weight.shape) for weight in weights)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
