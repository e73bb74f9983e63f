"""The picture of a sharing search."""

from matplotlib import figure

from keras_incremental.reports import pictures

_AWARE, _ALL, _COST = "#0072B2", "#D55E00", "#009E73"


def plot_curve(curve, path):
    """Draws accuracy, tolerance band and choice, and the cost of training.

    Args:
        curve: a `SharingCurve`.
        path: `str` or path-like; `.png`, `.svg` or `.pdf`.

    Returns:
        the path.

    Raises:
        ValueError: for another kind of file.
    """
    return pictures.save(curve_figure(curve), path)


def curve_figure(curve) -> figure.Figure:
    """Returns the figure that `plot_curve` writes."""
    drawing = figure.Figure(figsize=(7.0, 7.2), layout="constrained")
    upper, lower = drawing.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_accuracy(upper, curve)
    _draw_cost(lower, curve)
    lower.set_xlabel("layers shared and frozen (% of the weight layers)")
    return drawing


def _draw_accuracy(axes, curve) -> None:
    points = curve.points
    shared = [100 * point.layers for point in points]
    best = 100 * points[0].task_aware_accuracy
    least = 100 * curve.least_accuracy
    axes.axhspan(
        least, best, color=_AWARE, alpha=0.15, linewidth=0,
        label=f"within {100 * curve.tolerance:g} points of no sharing",
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
        color=_ALL, fillstyle="none", label="among all classes, as it is",
    )  # fmt: skip
    _mark_choice(axes, curve)
    axes.set_ylabel("accuracy of the new tasks (%)")
    axes.set_title("Accuracy and cost of sharing the first layers")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="best")


def _mark_choice(axes, curve) -> None:
    try:
        chosen = curve.chosen
    except ValueError:
        return
    axes.plot(
        [100 * chosen.layers],
        [100 * chosen.task_aware_accuracy],
        "o",
        markersize=14,
        fillstyle="none",
        markeredgewidth=2,
        color="black",
        label=f"chosen: {pictures.literal(chosen.branch_at)}",
    )


def _draw_cost(axes, curve) -> None:
    points = curve.points
    shared = [100 * point.layers for point in points]
    for quantity, marker, label in (
        ("training_macs", "o-", "multiply-accumulates"),
        ("training_energy", "^--", "energy"),
    ):
        axes.plot(
            shared,
            [100 * _relative(point, quantity) for point in points],
            marker,
            color=_COST,
            label=label,
        )
    whole = points[0].seconds_per_epoch
    axes.plot(
        shared,
        [100 * point.seconds_per_epoch / whole for point in points],
        "D:",
        color="black",
        label="measured seconds",
    )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("an epoch of a new task\n(% of no sharing)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="best")


def _relative(point, quantity: str) -> float:
    rows = point.cost.rows
    return getattr(rows[-1], quantity) / getattr(rows[0], quantity)
