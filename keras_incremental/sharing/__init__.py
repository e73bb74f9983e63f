"""Where to cut a network for partial sharing: the places, and the choice."""

from keras_incremental.sharing.curve import SharingCurve, SharingPoint
from keras_incremental.sharing.cut_points import CutPoint, cut_points
from keras_incremental.sharing.demo import hold_out
from keras_incremental.sharing.search import DEFAULT_POINTS, fit_tasks, search

__all__ = [
    "DEFAULT_POINTS",
    "CutPoint",
    "SharingCurve",
    "SharingPoint",
    "cut_points",
    "fit_tasks",
    "hold_out",
    "search",
]
