"""Keras networks taken apart: their graph, their cuts, their clones.

Partial network sharing freezes the first layers of any network and clones the
later ones. `Graph` reads what is called on what; the rest stands on it.
"""

from keras_incremental.networks.cutting import Cut, find_cut, legal_cuts, split
from keras_incremental.networks.graph import Graph, Node
from keras_incremental.networks.operations import count_network
from keras_incremental.networks.thinning import thin

__all__ = [
    "Cut",
    "Graph",
    "Node",
    "count_network",
    "find_cut",
    "legal_cuts",
    "split",
    "thin",
]
