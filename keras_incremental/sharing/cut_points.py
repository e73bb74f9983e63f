"""The places where a network can be cut."""

import dataclasses

import keras
import numpy as np

from keras_incremental.backbones import as_feature_extractor
from keras_incremental.graphs import Graph, count_network, legal_cuts


@dataclasses.dataclass(frozen=True)
class CutPoint:
    """A place where a network can be cut, and what lies before it.

    Attributes:
        name: the last shared layer, for `branch_at`; the name of the input
            where nothing is shared (`branch_at=0.0`).
        layers: share of the weight layers (convolutions, dense layers).
        parameters: share of the parameters.
        macs: share of the multiply-accumulates of one image.
    """

    name: str
    layers: float
    parameters: float
    macs: float


def cut_points(backbone: keras.Model) -> list[CutPoint]:
    """Returns the legal branch points of a network, from input to output.

    A network can be cut where a single tensor crosses, and no layer is called
    on both sides.

    Args:
        backbone: as for `IncrementalClassifier`.

    Raises:
        TypeError, ValueError: for a backbone that is no such model.

    >>> import keras_incremental as ki
    >>> for point in cut_points(ki.backbones.small((8, 8, 1)))[-2:]:
    ...     print(point.name, point.layers, round(point.macs, 2))
    stage3 1.0 1.0
    features 1.0 1.0
    """
    extractor = as_feature_extractor(backbone)
    before = np.cumsum([node.macs for node in count_network(extractor)])
    return [
        CutPoint(
            cut.name,
            cut.layers,
            cut.parameters,
            float(before[cut.index] / max(before[-1], 1)),
        )
        for cut in legal_cuts(Graph(extractor))
    ]
