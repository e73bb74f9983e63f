"""What all plots have in common."""

import pathlib

import numpy as np
from matplotlib import figure, ticker

from keras_incremental.files import atomic_write
from keras_incremental.reports.text_table import aligned

DPI = 150
# Okabe and Ito's colours, which stay apart for colour-blind readers, without
# the yellow that is too light for a line. Those after them are as far from one
# another and from them, with full and with red-, green- or blue-blind sight.
# Beyond them the dashes change.
_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#000000",
    "#56B4E9",
    "#E69F00",
    "#7300E6",
    "#732200",
    "#BBBF73",
    "#2E4C3F",
    "#49004C",
    "#280073",
)
_MARKERS = "os^DvPX<>*phd"
_DASHES = ("-", "--", ":", "-.")
_BOUND = "0.45"
_HIGH = 0.9
_STRETCHED_TICKS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)


def looks(names, bounds=()):
    """Returns how each method is drawn, the same in all plots of the methods.

    Args:
        names: Of the methods, in order.
        bounds: The names that are drawn grey and dashed.

    Returns:
        Dict from name to a dict of `color`, `marker` and `linestyle`.

    >>> looks(["eeil", "joint"], ["joint"])["eeil"]["color"]
    '#0072B2'
    """
    methods = [name for name in names if name not in bounds]
    found = {
        name: {
            "color": _COLOURS[index % len(_COLOURS)],
            "marker": _MARKERS[index % len(_COLOURS)],
            "linestyle": _DASHES[index // len(_COLOURS) % len(_DASHES)],
        }
        for index, name in enumerate(methods)
    }
    for index, name in enumerate(bounds):
        marker = "x+"[index % 2]
        found[name] = {"color": _BOUND, "marker": marker, "linestyle": "--"}
    return found


def new_figure(width, height):
    """Returns a figure of a size in inches, and its axes."""
    picture = figure.Figure(figsize=(width, height), layout="constrained")
    return picture, picture.add_subplot()


def scale_accuracy(axes, accuracies, label):
    """Makes the y axis one of accuracy, from 0% to 100%, with a label.

    Where more than three of `accuracies` are above 90% it is stretched towards
    100%, as the square root of the error, since they would be one line.
    """
    if sum(accuracy > _HIGH for accuracy in accuracies) > 3:
        axes.set_yscale("function", functions=(_stretched, _unstretched))
        axes.yaxis.set_major_locator(ticker.FixedLocator(_STRETCHED_TICKS))
        axes.set_ylim(0, 1.0005)
        label = f"{label}\n(axis stretched towards 100%)"
    else:
        axes.set_ylim(0, 1.05)
        axes.yaxis.set_major_locator(ticker.MultipleLocator(0.1))
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
    axes.set_ylabel(label)
    axes.grid(True, color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def write_table(axes, handles, heads, rows, accuracies):
    """Writes a legend beside the axes, a row of figures for each method.

    Args:
        axes: The only ones of their figure, which becomes wider.
        handles: What is drawn of each method.
        heads: Of the columns, the first one being that of the names.
        rows: The cells of each method, as text.
        accuracies: By which the rows are ordered, the best one first.
    """
    columns = list(zip(heads, *rows, strict=True))
    head, *lines = map(literal, aligned(columns))
    order = np.argsort(-np.array(accuracies), kind="stable")
    picture = axes.figure
    font = {"family": "monospace", "size": "small"}
    legend = picture.legend(
        [handles[index] for index in order],
        [lines[index] for index in order],
        title=head,
        loc="outside right center",
        alignment="right",
        frameon=False,
        handlelength=3,
        labelspacing=0.6,
        prop=font,
        title_fontproperties=font,
    )
    width = legend.get_window_extent().width
    picture.set_figwidth(picture.get_figwidth() + width / picture.dpi)


def _stretched(accuracy):
    error = 1 - np.asarray(accuracy)
    return -np.sign(error) * np.sqrt(np.abs(error))


def _unstretched(height):
    return 1 + np.sign(height) * np.square(height)


def save(picture, path):
    """Writes the figure `picture` to `path`, whole or not at all.

    Args:
        picture: A `matplotlib.figure.Figure`.
        path: `str` or path-like; the suffix chooses the kind of file, one that
            matplotlib writes; PNG without one.

    Returns:
        `pathlib.Path(path)`.

    Raises:
        ValueError: If matplotlib writes no such file.
    """
    path = pathlib.Path(path)
    with atomic_write(path) as file:
        picture.savefig(file, format=path.suffix[1:] or "png", dpi=DPI)
    return path


def set_title(axes, *lines):
    """Writes the title of axes, of those lines that are there."""
    title = "\n".join(line for line in lines if line)
    axes.set_title(literal(title), fontsize="medium")


def literal(text):
    """`text` such that matplotlib does not read `$` as mathematics."""
    return str(text).replace("$", r"\$")


def shortened(text, length):
    """At most `length` characters of `text`, as `literal`."""
    text = str(text)
    if len(text) > length:
        text = text[: length - 1] + "…"
    return literal(text)
