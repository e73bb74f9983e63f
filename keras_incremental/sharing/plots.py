"""The picture of a sharing search."""

from matplotlib import figure

from keras_incremental.reports import plots

_AWARE, _ALL, _COST = "#0072B2", "#D55E00", "#009E73"
_LONGEST_NAME = 30


def plot_curve(curve, path):
    """Draws accuracy, tolerance band and choice, and the cost of training.

    Args:
        curve: A `SharingCurve`.
        path: `str` or path-like; `.png`, `.svg` or `.pdf`.

    Returns:
        the path.

    Raises:
        ValueError: For another kind of file.
    """
    return plots.save(curve_figure(curve), path)


def curve_figure(curve) -> figure.Figure:
    """Returns the figure that `plot_curve` writes."""
    drawing = figure.Figure(figsize=(7.0, 8.0), layout="constrained")
    upper, lower = drawing.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_accuracy(upper, curve)
    _draw_cost(lower, curve)
    for axes, columns in ((upper, 2), (lower, 3)):
        axes.grid(alpha=0.3)
        _legend_above(axes, columns)
    lower.set_xlim(-4, 104)
    lower.set_xlabel("layers shared and frozen (% of the weight layers)")
    drawing.suptitle("Accuracy and cost of sharing the first layers")
    return drawing


def _legend_above(axes, columns: int) -> None:
    """Puts the legend where it covers no point."""
    axes.legend(
        fontsize="small",
        frameon=False,
        ncols=columns,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        labelspacing=0.7,
    )


def _draw_accuracy(axes, curve) -> None:
    points = curve.points
    shared = [100 * point.layers for point in points]
    best = 100 * points[0].task_aware_accuracy
    least = 100 * curve.least_accuracy
    axes.axhspan(
        least, best, color=_AWARE, alpha=0.15, linewidth=1,
        label=f"within {_in_points(curve.tolerance)} of no sharing",
    )  # fmt: skip
    axes.plot(
        shared, [100 * p.task_aware_accuracy for p in points], "o-",
        color=_AWARE, label="among the task's own classes",
    )  # fmt: skip
    if any(point.calibrated for point in points):
        axes.plot(
            shared, [100 * p.accuracy for p in points], "s-",
            color=_ALL, label="among all classes, calibrated",
        )  # fmt: skip
    axes.plot(
        shared, [100 * p.uncalibrated_accuracy for p in points], "s:",
        color=_ALL, fillstyle="none", label="among all classes, uncalibrated",
    )  # fmt: skip
    _mark_choice(axes, curve)
    axes.set_ylabel("accuracy of the new tasks (%)")


def _in_points(tolerance: float) -> str:
    """Accuracy in percentage points.

    >>> _in_points(0.01), _in_points(0.025)
    ('1 point', '2.5 points')
    """
    points = f"{100 * tolerance:g}"
    return f"{points} point" if points == "1" else f"{points} points"


def _mark_choice(axes, curve) -> None:
    try:
        chosen = curve.chosen
    except ValueError:
        return
    axes.plot(
        [100 * chosen.layers],
        [100 * chosen.task_aware_accuracy],
        "o",
        markersize=12,
        fillstyle="none",
        markeredgewidth=2,
        color="black",
        label=f"chosen: {_shortened(str(chosen.branch_at))}",
    )


def _shortened(name: str) -> str:
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 1]}…"
    return plots.literal(name)


def _draw_cost(axes, curve) -> None:
    points = curve.points
    shared = [100 * point.layers for point in points]
    for quantity, marker, label in (
        ("training_macs", "o-", "multiply-accumulates"),
        ("training_energy", "^--", "energy (estimate)"),
    ):
        costs = [getattr(point.cost.rows[-1], quantity) for point in points]
        axes.plot(
            shared,
            [100 * cost / costs[0] for cost in costs],
            marker,
            color=_COST,
            label=label,
            clip_on=False,
        )
    seconds = [point.seconds_per_epoch for point in points]
    axes.plot(
        shared,
        [100 * duration / seconds[0] for duration in seconds],
        "D:",
        color="black",
        label="seconds (measured)",
        clip_on=False,
    )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("an epoch of a new task\n(% of no sharing)")
