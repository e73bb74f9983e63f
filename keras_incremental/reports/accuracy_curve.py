"""The picture of accuracy over the classes seen."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import figure, ticker

from keras_incremental._types import PathLike
from keras_incremental.reports import plots
from keras_incremental.reports.summary import percent, spread

# Okabe and Ito's colours, which stay apart for colour-blind readers, without
# the yellow that is too light for a line, and three of Paul Tol's. Beyond them
# the dashes change.
_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#000000",
    "#56B4E9",
    "#E69F00",
    "#332288",
    "#882255",
    "#999933",
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_DASHES = ("-", "--", ":", "-.")
_BOUND = "0.45"

_MAX_TICKS = 12
_MAX_VALUES = 12


def accuracy_figure(
    runs: Mapping[str, Mapping | Sequence[Mapping]],
    title: str | None = None,
    bounds: Sequence[str] = (),
) -> figure.Figure:
    """Returns a figure with one accuracy curve for each run, or method.

    A run's curve is the accuracy over all classes seen after each task,
    against their number; the legend adds its average incremental and final
    accuracy. Runs of several seeds are their mean, in a band of one sample
    standard deviation to each side. A single run has the values written at its
    points.

    Args:
        runs: Dict from the name of a run to its results (`read_results`), or
            from that of a method to a list of them, one a seed.
        title: By default the data set, if it is one.
        bounds: The names that are drawn grey and dashed.

    Returns:
        A `matplotlib.figure.Figure`; the lines of `figure.axes[0]` are the
        runs, in order, accuracies in [0, 1].

    Raises:
        ValueError: If there is no run, or the seeds of a method have seen other
            numbers of classes.

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
    groups = {
        name: group if isinstance(group, list) else [group]
        for name, group in runs.items()
    }
    picture = figure.Figure(
        figsize=(7.0, 4.1 + 0.2 * len(runs)), layout="constrained"
    )
    axes = picture.add_subplot()
    looks = _looks(groups, bounds)
    for name, group in groups.items():
        _draw_runs(axes, name, group, next(looks))
    if len(runs) == 1:
        _write_values(axes, axes.lines[0])
    _label_axes(axes, groups, title)
    picture.legend(
        handles=axes.lines,
        loc="outside lower center",
        frameon=False,
        handlelength=3.5,
        fontsize="small",
    )
    return picture


def plot_accuracy(
    runs: Mapping[str, Mapping | Sequence[Mapping]],
    path: PathLike,
    title: str | None = None,
    bounds: Sequence[str] = (),
) -> pathlib.Path:
    """Writes the picture of `accuracy_figure`, whole or not at all.

    Args:
        runs, title, bounds: As of `accuracy_figure`.
        path: `str` or path-like; `.png`, `.svg` or `.pdf`.

    Returns:
        `pathlib.Path(path)`.

    Raises:
        ValueError: As `accuracy_figure`, or for another kind of file.
    """
    return plots.save(accuracy_figure(runs, title, bounds), path)


def _looks(names, bounds):
    """Yields colour, marker and dashes of each name."""
    index = 0
    for name in names:
        if name in bounds:
            marker = "x+"[list(bounds).index(name) % 2]
            yield {"color": _BOUND, "marker": marker, "linestyle": "--"}
            continue
        yield {
            "color": _COLOURS[index % len(_COLOURS)],
            "marker": _MARKERS[index % len(_COLOURS)],
            "linestyle": _DASHES[index // len(_COLOURS) % len(_DASHES)],
        }
        index += 1


def _draw_runs(axes, name, group, look):
    """Draws the mean of the runs of a method, and their deviation."""
    seen = _classes_seen(name, group)
    by_task = zip(*(run["tasks"] for run in group), strict=True)
    spreads = [
        spread([task["accuracy"] for task in tasks]) for tasks in by_task
    ]
    # A result that is not known (None) leaves a gap.
    means, deviations = np.array(spreads, dtype=np.float64).T
    average, final = (
        _percent([run[key] for run in group])
        for key in ("average_incremental_accuracy", "final_accuracy")
    )
    axes.plot(
        seen,
        means,
        **look,
        markersize=5,
        linewidth=1.6,
        label=plots.literal(f"{name}: average {average}, final {final}"),
    )
    if len(group) > 1:
        axes.fill_between(
            seen,
            means - deviations,
            means + deviations,
            color=look["color"],
            alpha=0.15,
            linewidth=0,
        )


def _classes_seen(name, group):
    """Returns the number of classes seen after each task, of all its runs."""
    seen = [[task["seen_classes"] for task in run["tasks"]] for run in group]
    if any(other != seen[0] for other in seen):
        raise ValueError(
            f"The runs of {name!r} have seen other numbers of classes: {seen}. "
            "Give seeds of one scenario, each with all of its tasks."
        )
    return seen[0]


def _percent(values):
    return "unknown" if None in values else f"{percent(values)}%"


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


def _label_axes(axes, groups, title):
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
    datasets = {run["dataset"] for group in groups.values() for run in group}
    if title is None and len(datasets) == 1:
        title = datasets.pop()
    if title is not None:
        axes.set_title(plots.literal(title), fontsize="medium")
