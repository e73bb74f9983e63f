"""The picture of what sharing saves."""

import dataclasses
import math
from collections.abc import Sequence

from matplotlib import figure, patches, ticker

from keras_incremental.cost.part_cost import PartCost, ratio
from keras_incremental.cost.table import INFERENCE, STORAGE, TRAINING, Quantity
from keras_incremental.reports import plots

# Okabe and Ito's blue for the base network; its later branches are lighter.
_BASE, _BRANCH = "#0072B2", "#56B4E9"
_WITHOUT = "0.85"
_BAR, _BAND = 0.42, 0.72
_GAP = 0.5
_MAX_TICKS = 8

_GROUPS = (
    ("Storage", STORAGE[:1]),
    ("Inference of one image", INFERENCE),
    ("Training on one image", TRAINING),
)
_LABELS = {
    "parameters": "weights",
    "operations": "multiply-accumulates",
    "moved": "memory traffic",
    "energy": "energy (estimate)",
    "time": "time (measured)",
}
_UNITS = {"MMACs": "million", "M": "million"}


@dataclasses.dataclass(frozen=True)
class _Line:
    """One line of the chart: a quantity at a height."""

    quantity: Quantity
    y: float


def sharing_figure(
    rows: Sequence[PartCost],
    with_sharing: PartCost,
    without_sharing: PartCost,
    title: str,
):
    """Returns a figure of the totals with sharing, relative to those without.

    Each quantity has a grey band of 100%, a whole network for each task, and
    on it a bar of the base network and of every later branch, end to end. A
    quantity that was not measured is left out.

    Args:
        rows: The parts; the first is the base network.
        with_sharing: Their total.
        without_sharing: The total without sharing.
        title: The title of the figure.

    Returns:
        A `matplotlib.figure.Figure`; the axis of `figure.axes[0]` is the
        share of the total without sharing.
    """
    lines, headings = _layout(with_sharing, without_sharing)
    picture = figure.Figure(
        figsize=(8.0, 1.7 + 0.36 * (len(lines) + len(headings))),
        layout="constrained",
    )
    axes = picture.add_subplot()
    for line in lines:
        axes.barh(line.y, 1.0, height=_BAND, color=_WITHOUT)
        _draw_parts(axes, line, rows, without_sharing)
        _write_values(axes, line, with_sharing, without_sharing)
    for name, y in headings.items():
        axes.annotate(
            name,
            (0, y),
            xycoords=axes.get_yaxis_transform(),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            weight="bold",
        )
    _label_axes(axes, lines, title)
    picture.legend(
        handles=_legend(rows),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize="small",
    )
    return picture


def plot_sharing(rows, with_sharing, without_sharing, title, path):
    """Writes the picture of `sharing_figure`, whole or not at all.

    Args:
        rows: As for `sharing_figure`.
        with_sharing: As for `sharing_figure`.
        without_sharing: As for `sharing_figure`.
        title: As for `sharing_figure`.
        path: `str` or path-like; `.png`, `.svg` or `.pdf`.

    Returns:
        `pathlib.Path(path)`.

    Raises:
        ValueError: For another kind of file.
    """
    picture = sharing_figure(rows, with_sharing, without_sharing, title)
    return plots.save(picture, path)


def _layout(with_sharing, without_sharing):
    """The lines, and the heights of the headings, from top to bottom."""
    lines, headings, y = [], {}, 0.0
    for heading, quantities in _GROUPS:
        known = [
            quantity
            for quantity in quantities
            if ratio(with_sharing, without_sharing, quantity.name) is not None
        ]
        if not known:
            continue
        headings[heading] = y
        lines += [
            _Line(quantity, y + 1 + index)
            for index, quantity in enumerate(known)
        ]
        y += len(known) + 1 + _GAP
    return lines, headings


def _draw_parts(axes, line, rows, without_sharing):
    left = 0.0
    for index, row in enumerate(rows):
        share = ratio(row, without_sharing, line.quantity.name)
        axes.barh(
            line.y,
            share,
            left=left,
            height=_BAR,
            color=_BRANCH if index else _BASE,
            edgecolor="white",
            linewidth=0.6,
        )
        left += share


def _write_values(axes, line, with_sharing, without_sharing):
    name, factor = line.quantity.name, line.quantity.factor
    share = ratio(with_sharing, without_sharing, name)
    unit = _UNITS.get(line.quantity.unit, line.quantity.unit)
    values = " of ".join(
        _rounded(factor * getattr(part, name))
        for part in (with_sharing, without_sharing)
    )
    axes.annotate(
        f"{100 * share:.0f}%   ({values} {unit})",
        (max(share, 1.0), line.y),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize="small",
    )


def _rounded(value: float) -> str:
    """Three digits, without an exponent.

    >>> _rounded(1234.5), _rounded(0.01234)
    ('1,234', '0.0123')
    """
    if not value:
        return "0"
    digits = 2
    while abs(value) * 10**digits < 100 and digits < 8:
        digits += 1
    while digits and abs(value) * 10**digits >= 1000:
        digits -= 1
    return f"{value:,.{digits}f}"


def _label_axes(axes, lines, title):
    axes.set_yticks(
        [line.y for line in lines],
        [_LABELS[line.quantity.heading] for line in lines],
    )
    axes.tick_params(axis="y", length=0)
    longest = max(
        1.0, *(patch.get_x() + patch.get_width() for patch in axes.patches)
    )
    step = 0.25 * math.ceil(longest / _MAX_TICKS / 0.25)
    axes.set_xticks([step * i for i in range(int(longest / step) + 1)])
    axes.set_xlim(0, longest * 1.5)
    axes.set_ylim(max(line.y for line in lines) + 0.6, -0.6)
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("cost, as a share of the cost without sharing")
    axes.set_title(plots.literal(title), fontsize="medium")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _legend(rows):
    entries = [(_BASE, "base network")]
    if len(rows) > 1:
        entries.append((_BRANCH, _branches(rows[1:])))
    entries.append((_WITHOUT, "without sharing: a whole network for each task"))
    return [
        patches.Patch(color=colour, label=label) for colour, label in entries
    ]


def _branches(rows) -> str:
    if len(rows) == 1:
        return rows[0].name
    return f"{len(rows)} branches, one for each later task"
