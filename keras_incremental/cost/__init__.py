"""What a model costs: weights, arithmetic, memory traffic, energy, time.

    cost = keras_incremental.cost.report(model)
    print(cost)

compares a model whose tasks share their first layers with one that has a whole
network for each task.
"""

from keras_incremental.cost.cost_report import CostReport
from keras_incremental.cost.energy import HOROWITZ_45NM, EnergyConstants
from keras_incremental.cost.part_cost import PartCost
from keras_incremental.cost.report import report

__all__ = [
    "HOROWITZ_45NM",
    "CostReport",
    "EnergyConstants",
    "PartCost",
    "report",
]
