"""The picture of final accuracy against what a method stores."""

import pathlib
from collections.abc import Mapping, Sequence

from matplotlib import figure, ticker

from keras_incremental._types import PathLike
from keras_incremental.reports import plots
from keras_incremental.reports.summary import summarize

_COLOUR = "#0072B2"
_LINE = 0.045  # of the height of the axes, between two labels


def bytes_figure(
    runs: Mapping[str, Mapping | Sequence[Mapping]],
    title: str | None = None,
    bounds: Sequence[str] = (),
) -> figure.Figure:
    """Returns a figure of final accuracy against bytes, a point a method.

    Args:
        runs: As of `summarize`. A method whose bytes are not known, such as one
            that keeps all images, has no point.
        title: Of the figure, if any.
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
    picture = figure.Figure(figsize=(7.0, 4.6), layout="constrained")
    axes = picture.add_subplot()
    points = []
    for row in rows:
        (mean, deviation), size = row["final_accuracy"], row["bytes"]
        if row["method"] in bounds:
            axes.axhline(mean, color="0.45", linestyle="--", linewidth=1)
            axes.annotate(
                plots.literal(row["method"]),
                (0.01, mean),
                xycoords=("axes fraction", "data"),
                xytext=(0, 2),
                textcoords="offset points",
                fontsize="small",
                color="0.35",
            )
        elif size is not None:
            axes.errorbar(
                size / 1e6, mean, deviation, fmt="o", color=_COLOUR, capsize=3
            )
            points.append((size / 1e6, mean, row["method"]))
    largest = max((size for size, *_ in points), default=1)
    axes.set_xlim(0, 1.4 * largest)  # with room for the names
    _label_axes(axes, [row["final_accuracy"] for row in rows], title)
    _write_names(axes, points)
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


def _label_axes(axes, accuracies, title):
    reach = [
        mean + side * (deviation or 0)
        for mean, deviation in accuracies
        for side in (-1, 1)
    ]
    margin = max(0.1 * (max(reach) - min(reach)), 0.02)
    axes.set_ylim(min(reach) - margin, max(reach) + margin)
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    axes.set_xlabel("MB: 4 bytes a parameter, exemplars as stored")
    axes.set_ylabel("final accuracy over all classes")
    axes.grid(True, color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if title is not None:
        axes.set_title(plots.literal(title), fontsize="medium")


def _write_names(axes, points):
    """Writes each name beside its point, those above one another apart."""
    low, high = axes.get_ylim()
    line, last = _LINE * (high - low), high
    middle = sum(axes.get_xlim()) / 2
    for size, accuracy, name in sorted(points, key=lambda point: -point[1]):
        last = min(accuracy, last - line)
        is_left = size < middle
        axes.annotate(
            plots.literal(name),
            (size, accuracy),
            xytext=(14 if is_left else -14, last),
            textcoords=("offset points", "data"),
            ha="left" if is_left else "right",
            va="center",
            fontsize="small",
            arrowprops={
                "arrowstyle": "-",
                "color": "0.6",
                "linewidth": 0.7,
                "relpos": (0.0 if is_left else 1.0, 0.5),
            },
        )
