"""The picture of final accuracy against what a method stores."""

import pathlib
from collections.abc import Mapping, Sequence

from matplotlib import figure

from keras_incremental._types import PathLike
from keras_incremental.reports import plots
from keras_incremental.reports.summary import describe, percent, summarize


def bytes_figure(
    runs: Mapping[str, Mapping | Sequence[Mapping]],
    title: str | None = None,
    bounds: Sequence[str] = (),
) -> figure.Figure:
    """Returns a figure of final accuracy against bytes, a point a method.

    Beside it is a table of both, the best method first. The axis is that of
    `accuracy_figure`, and so are the colours.

    Args:
        runs: As of `summarize`. A method whose bytes are not known, such as one
            that keeps all images, has no point.
        title: By default data, tasks and memory.
        bounds: The names that are drawn as dashed lines.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If there is no method with a final accuracy.
    """
    rows = [
        row for row in summarize(runs) if row["final_accuracy"][0] is not None
    ]
    if not rows:
        raise ValueError("runs has no final accuracy, expected one or more.")
    picture, axes = plots.new_figure(7.0, 4.6)
    looks = plots.looks(runs, bounds)
    handles = [_draw(axes, row, looks[row["method"]], bounds) for row in rows]
    axes.set_xlim(left=0)
    axes.set_xlabel("MB: 4 bytes a parameter, exemplars as stored")
    finals = [row["final_accuracy"][0] for row in rows]
    plots.scale_accuracy(axes, finals, "final accuracy over all classes")
    if title is None:
        title = describe([run for group in runs.values() for run in group])
    plots.set_title(axes, title)
    cells = [_cells(row, runs[row["method"]]) for row in rows]
    plots.write_table(axes, handles, ("", "final %", "MB"), cells, finals)
    return picture


def plot_bytes(
    runs: Mapping[str, Mapping | Sequence[Mapping]],
    path: PathLike,
    title: str | None = None,
    bounds: Sequence[str] = (),
) -> pathlib.Path:
    """Writes the picture of `bytes_figure`, whole or not at all.

    Args:
        runs, title, bounds: As of `bytes_figure`.
        path: `str` or path-like; `.png`, `.svg` or `.pdf`.

    Returns:
        `pathlib.Path(path)`.

    Raises:
        ValueError: As `bytes_figure`, or for another kind of file.
    """
    return plots.save(bytes_figure(runs, title, bounds), path)


def _draw(axes, row, look, bounds):
    """Draws a method; returns what stands for it in the table."""
    (mean, deviation), size = row["final_accuracy"], row["bytes"]
    if row["method"] in bounds or size is None:
        look = {**look, "marker": None}
        return axes.axhline(mean, **look, linewidth=1)
    look = {**look, "linestyle": "none", "clip_on": False}
    return axes.errorbar(size / 1e6, mean, deviation, **look, capsize=3)


def _cells(row, group):
    final = percent([results["final_accuracy"] for results in group])
    size = row["bytes"]
    return row["method"], final, "-" if size is None else f"{size / 1e6:.2f}"
