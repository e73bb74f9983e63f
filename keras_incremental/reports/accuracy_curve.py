"""The picture of accuracy over the classes seen."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import figure

from keras_incremental._types import PathLike
from keras_incremental.reports import plots
from keras_incremental.reports.summary import describe, percent, spread

_MAX_TICKS = 12
_MAX_VALUES = 12


def accuracy_figure(
    runs: Mapping[str, Mapping | Sequence[Mapping]],
    title: str | None = None,
    bounds: Sequence[str] = (),
) -> figure.Figure:
    """Returns a figure with one accuracy curve for each run, or method.

    A run's curve is the accuracy over all classes seen after each task,
    against their number. Runs of several seeds are their mean, in a band of one
    sample standard deviation to each side. Beside the curves is a table of
    final and average incremental accuracy, the best method first; that of a
    single run is in the title, and the values are written at its points. Where
    more than three methods end above 90%, the axis is stretched towards 100%.

    Args:
        runs: Dict from the name of a run to its results (`read_results`), or
            from that of a method to a list of them, one a seed.
        title: By default data, tasks and memory, of a single data set.
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
    ...     "tasks": [{"seen_classes": 2, "accuracy": 0.75, "exemplars": 9}],
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
    picture, axes = plots.new_figure(7.0, 4.6)
    looks = plots.looks(groups, bounds)
    for name, group in groups.items():
        _draw_runs(axes, name, group, looks[name])
    finals = [line.get_ydata()[-1] for line in axes.lines]
    _label_axes(axes, finals)
    all_runs = [run for group in groups.values() for run in group]
    if title is None and len({run["dataset"] for run in all_runs}) == 1:
        title = describe(all_runs)
    heading = None
    if len(groups) == 1:
        _write_values(axes, axes.lines[0])
        ((name, group),) = groups.items()
        final, average = _accuracies(group)
        heading = f"{name}: final {final}%, average {average}%"
    else:
        rows = [(name, *_accuracies(group)) for name, group in groups.items()]
        heads = ("", "final %", "average %")
        plots.write_table(axes, axes.lines, heads, rows, finals)
    plots.set_title(axes, heading, title)
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


def _draw_runs(axes, name, group, look):
    """Draws the mean of the runs of a method, and their deviation."""
    seen = _classes_seen(name, group)
    by_task = zip(*(run["tasks"] for run in group), strict=True)
    spreads = [
        spread([task["accuracy"] for task in tasks]) for tasks in by_task
    ]
    # A result that is not known (None) leaves a gap.
    means, deviations = np.array(spreads, dtype=np.float64).T
    axes.plot(seen, means, **look, markersize=5, linewidth=1.6, clip_on=False)
    if len(group) > 1:
        axes.fill_between(
            seen,
            np.maximum(means - deviations, 0),
            np.minimum(means + deviations, 1),
            color=look["color"],
            alpha=0.12,
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


def _accuracies(group):
    """Returns final and average incremental accuracy of runs, as text."""
    keys = ("final_accuracy", "average_incremental_accuracy")
    return [percent([run[key] for run in group]) for key in keys]


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
            xytext=(0, -14 if accuracy > 0.5 else 6),
            textcoords="offset points",
            ha="center",
            fontsize="small",
        )


def _label_axes(axes, finals):
    seen = sorted({x for line in axes.lines for x in line.get_xdata()})
    span = seen[-1] - seen[0]
    margin = 0.06 * span or 0.5 * seen[-1]
    step = -(-len(seen) // _MAX_TICKS)
    axes.set_xticks(seen[::-1][::step][::-1])
    axes.set_xlim(seen[0] - margin, seen[-1] + margin)
    plots.scale_accuracy(axes, finals, "accuracy over all classes seen")
    axes.set_xlabel("classes seen")
