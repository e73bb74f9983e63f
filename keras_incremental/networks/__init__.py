"""Networks that grow: a backbone and a head, or branches on a frozen trunk.

What grows and what is frozen is a network's own affair. Methods choose a kind
and a time to grow; everything else works with `Network` alone.
"""

from keras_incremental.networks.branched_network import BranchedNetwork
from keras_incremental.networks.branching import BranchingNetwork
from keras_incremental.networks.frozen_trunk_network import (
    FrozenTrunkNetwork,
)
from keras_incremental.networks.network import (
    Network,
    traced,
    trained_outputs,
)
from keras_incremental.networks.one_head_network import OneHeadNetwork
from keras_incremental.networks.single_network import SingleNetwork
from keras_incremental.networks.trainable import all_layers
from keras_incremental.networks.trained_trunk_network import (
    TrainedTrunkNetwork,
)

__all__ = [
    "BranchedNetwork",
    "BranchingNetwork",
    "FrozenTrunkNetwork",
    "Network",
    "OneHeadNetwork",
    "SingleNetwork",
    "TrainedTrunkNetwork",
    "all_layers",
    "traced",
    "trained_outputs",
]
