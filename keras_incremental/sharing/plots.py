"""The picture of a sharing search."""

import dataclasses

from matplotlib import figure

from keras_incremental.reports import plots

_AWARE, _ALL, _COST = "#0072B2", "#D55E00", "#009E73"
_LONGEST_NAME = 30
_ACCURACIES = (
    ("task_aware_accuracy", "o-", _AWARE, "among the task's own classes"),
    ("accuracy", "s-", _ALL, "among all classes, calibrated"),
    ("uncalibrated_accuracy", "s:", _ALL, "among all classes, uncalibrated"),
)
_COSTS = (
    ("training_macs", "o-", _COST, "multiply-accumulates"),
    ("training_energy", "^--", _COST, "energy (estimate)"),
    ("training_seconds", "D:", "black", "seconds (measured)"),
)


def curve_figure(curve) -> figure.Figure:
    """Returns a figure of accuracy, tolerance, choice and cost of training.

    Args:
        curve: A `SharingCurve`.
    """
    drawing = figure.Figure(figsize=(7.0, 8.0), layout="constrained")
    upper, lower = drawing.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_accuracy(upper, curve)
    _draw_cost(lower, curve)
    for axes, columns in ((upper, 2), (lower, 3)):
        axes.grid(alpha=0.3)
        # Above the axes it covers no point.
        axes.legend(
            fontsize="small",
            frameon=False,
            ncols=columns,
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            labelspacing=0.7,
        )
    lower.set_xlim(-4, 104)
    lower.set_xlabel("layers shared and frozen (% of the weight layers)")
    drawing.suptitle("Accuracy and cost of sharing the first layers")
    return drawing


def _draw_accuracy(axes, curve) -> None:
    best = 100 * curve.points[0].task_aware_accuracy
    axes.axhspan(
        100 * curve.least_accuracy,
        best,
        color=_AWARE,
        alpha=0.15,
        linewidth=1,
        label=f"tolerance: {100 * curve.tolerance:g} % below no sharing",
    )
    calibrated = any(point.calibrated for point in curve.points)
    for name, style, colour, label in _ACCURACIES:
        if calibrated or name != "accuracy":
            values = [100 * getattr(point, name) for point in curve.points]
            axes.plot(_shared(curve), values, style, color=colour, label=label)
    _mark_choice(axes, curve)
    axes.set_ylabel("accuracy of the new tasks (%)")


def _mark_choice(axes, curve) -> None:
    try:
        chosen = curve.chosen
    except ValueError:
        return
    name = plots.shortened(chosen.branch_at, _LONGEST_NAME)
    axes.plot(
        [100 * chosen.layers],
        [100 * chosen.task_aware_accuracy],
        "o",
        markersize=12,
        fillstyle="none",
        markeredgewidth=2,
        color="black",
        label=f"chosen: {name}",
    )


def _draw_cost(axes, curve) -> None:
    branches = [
        dataclasses.replace(
            point.cost.rows[-1], training_seconds=point.seconds_per_epoch
        )
        for point in curve.points
    ]
    for name, style, colour, label in _COSTS:
        costs = [getattr(branch, name) for branch in branches]
        axes.plot(
            _shared(curve),
            [100 * cost / costs[0] for cost in costs],
            style,
            color=colour,
            label=label,
            clip_on=False,
        )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("an epoch of a new task\n(% of no sharing)")


def _shared(curve) -> list[float]:
    return [100 * point.layers for point in curve.points]
