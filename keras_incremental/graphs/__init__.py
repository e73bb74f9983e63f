"""Keras networks taken apart: their graph, their cuts, their clones.

Partial network sharing freezes the first layers of any network and clones the
later ones. `Graph` reads what is called on what; the rest stands on it.
"""

from keras_incremental.graphs.cloning import (
    check_cloneable,
    clone_network,
    cloned_layer,
)
from keras_incremental.graphs.cutting import Cut, find_cut, legal_cuts, split
from keras_incremental.graphs.graph import Graph, Node
from keras_incremental.graphs.operations import count_network
from keras_incremental.graphs.weights import (
    copy_weights,
    differ_in_weights_alone,
    finalize_normalizations,
)

__all__ = [
    "Cut",
    "Graph",
    "Node",
    "check_cloneable",
    "clone_network",
    "cloned_layer",
    "copy_weights",
    "count_network",
    "differ_in_weights_alone",
    "finalize_normalizations",
    "find_cut",
    "legal_cuts",
    "split",
]
