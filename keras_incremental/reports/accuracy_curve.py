"""The picture of accuracy over the classes seen."""

import numpy as np
from matplotlib import figure, ticker

from keras_incremental.reports import plots

# Okabe and Ito's colours, which stay apart for colour-blind readers, without
# the yellow that is too light for a line. Beyond them the dashes change.
_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#000000",
    "#56B4E9",
    "#E69F00",
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", ":", "-.")

_MAX_TICKS = 12
_MAX_VALUES = 12


def accuracy_figure(runs):
    """Returns a figure with one accuracy curve for each run.

    A run's curve is the accuracy over all classes seen after each task,
    against their number; the legend adds its average incremental and final
    accuracy. A single run has the values written at its points.

    Args:
        runs: Dict from the name of a run to its results (`read_results`).

    Returns:
        A `matplotlib.figure.Figure`; the lines of `figure.axes[0]` are the
        runs, in order, accuracies in [0, 1].

    Raises:
        ValueError: If there is no run.

    Example:

    >>> run = {
    ...     "dataset": "digits",
    ...     "tasks": [{"seen_classes": 2, "accuracy": 0.75}],
    ...     "average_incremental_accuracy": 0.75,
    ...     "final_accuracy": 0.75,
    ... }
    >>> picture = accuracy_figure({"eeil": run})
    >>> picture.axes[0].lines[0].get_ydata().tolist()
    [0.75]
    """
    if not runs:
        raise ValueError("runs is empty, expected at least one run's results.")
    picture = figure.Figure(
        figsize=(7.0, 4.1 + 0.2 * len(runs)), layout="constrained"
    )
    axes = picture.add_subplot()
    for index, (name, results) in enumerate(runs.items()):
        _draw_run(axes, index, name, results)
    if len(runs) == 1:
        _write_values(axes, axes.lines[0])
    _label_axes(axes, runs)
    picture.legend(
        handles=axes.lines,
        loc="outside lower center",
        frameon=False,
        handlelength=3.5,
        fontsize="small",
    )
    return picture


def plot_accuracy(runs, path):
    """Writes the picture of `accuracy_figure`, whole or not at all.

    Args:
        runs: As of `accuracy_figure`.
        path: `str` or path-like; `.png`, `.svg` or `.pdf`.

    Returns:
        `pathlib.Path(path)`.

    Raises:
        ValueError: As `accuracy_figure`, or for another kind of file.
    """
    return plots.save(accuracy_figure(runs), path)


def _draw_run(axes, index, name, results):
    tasks = results["tasks"]
    average = _percent(results["average_incremental_accuracy"])
    final = _percent(results["final_accuracy"])
    colour = index % len(_COLOURS)
    axes.plot(
        [task["seen_classes"] for task in tasks],
        # A result that is not known (None) leaves a gap.
        np.array([task["accuracy"] for task in tasks], dtype=np.float64),
        color=_COLOURS[colour],
        marker=_MARKERS[colour],
        linestyle=_DASHES[index // len(_COLOURS) % len(_DASHES)],
        markersize=5,
        linewidth=1.6,
        label=plots.literal(f"{name}: average {average}, final {final}"),
    )


def _percent(value):
    return "unknown" if value is None else f"{100 * value:.1f}%"


def _write_values(axes, line):
    """Writes the accuracy above each point, if there is room."""
    points = list(zip(*line.get_data(), strict=True))
    if len(points) > _MAX_VALUES:
        return
    for classes, accuracy in points:
        if np.isnan(accuracy):
            continue
        axes.annotate(
            f"{100 * accuracy:.1f}",
            (classes, accuracy),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize="small",
        )


def _label_axes(axes, runs):
    seen = sorted({x for line in axes.lines for x in line.get_xdata()})
    span = seen[-1] - seen[0]
    margin = 0.06 * span or 0.5 * seen[-1]
    step = -(-len(seen) // _MAX_TICKS)
    axes.set_xticks(seen[::-1][::step][::-1])
    axes.set_xlim(seen[0] - margin, seen[-1] + margin)
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_locator(ticker.MultipleLocator(0.1))
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("classes seen")
    axes.set_ylabel("accuracy over all classes seen")
    axes.grid(True, color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    datasets = {results["dataset"] for results in runs.values()}
    if len(datasets) == 1:
        axes.set_title(plots.literal(datasets.pop()), fontsize="medium")
