"""The picture of what one task did to the accuracy of each class."""

import pathlib
from typing import Any

from matplotlib import figure, ticker

from keras_incremental._types import PathLike
from keras_incremental.reports import plots

_MOST = 15
_MAX_NAME_LENGTH = 24
_COLOURS = {
    "before": "0.55",
    "after, lower": "#D55E00",
    "after, not lower": "#0072B2",
    "new class": "#009E73",
}


def before_after_figure(report: Any, title: str | None = None) -> figure.Figure:
    """Returns a figure of the accuracy of each class before and after a task.

    Old classes come first, those on top that lost the most, then new classes,
    the least accurate on top. Of more than 15 old ones those are shown that
    changed the most, of more than 15 new ones the least accurate.

    Args:
        report: A report of `IncrementalCallback.reports`.
        title: Above the accuracies of old and new classes, if any.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If the report has no accuracies, as of a `fit` without
            validation data.

    Example:

    >>> from types import SimpleNamespace
    >>> report = SimpleNamespace(
    ...     accuracy_by_class_before={"cat": 0.9},
    ...     accuracy_by_class={"cat": 0.8, "dog": 0.7},
    ...     validation_images_by_class={"cat": 50, "dog": 20},
    ...     old_accuracy_before=0.9, old_accuracy=0.8, new_accuracy=0.7)
    >>> before_after_figure(report).axes[0].get_title()
    'old classes 90.0% → 80.0%, new classes 70.0%'
    """
    after = report.accuracy_by_class
    if not after:
        raise ValueError(
            "The report has no accuracy of any class: fit had no "
            "validation_data. Pass images of old and new classes to fit."
        )
    before = report.accuracy_by_class_before or {}
    changes = {name: after[name] - before[name] for name in before}
    most = sorted(changes, key=lambda name: -abs(changes[name]))[:_MOST]
    old = sorted(most, key=changes.get)
    new = [name for name in after if name not in before]
    names = old + sorted(new, key=after.get)[:_MOST]
    picture, axes = plots.new_figure(7.0, 1.7 + 0.26 * len(names))
    for row, name in enumerate(names):
        _draw(axes, row, before.get(name), after[name])
    if old and new:
        axes.axhline(len(old) - 0.5, color="0.7", linewidth=0.8)
    _label_axes(axes, names, report.validation_images_by_class, len(after))
    plots.set_title(axes, title, _accuracies(report))
    for label, colour in _COLOURS.items():
        axes.plot([], [], "o", color=colour, label=label)
    picture.legend(loc="outside lower center", ncols=4, frameon=False)
    return picture


def plot_before_after(
    report: Any, path: PathLike, title: str | None = None
) -> pathlib.Path:
    """Writes the picture of `before_after_figure`, whole or not at all.

    Args:
        report, title: As of `before_after_figure`.
        path: `str` or path-like; `.png`, `.svg` or `.pdf`.

    Returns:
        `pathlib.Path(path)`.

    Raises:
        ValueError: As `before_after_figure`, or for another kind of file.
    """
    return plots.save(before_after_figure(report, title), path)


def _draw(axes, row, before, after):
    """Draws a class, and writes its accuracies at the right."""
    text, colour = f"{100 * after:.0f}%", _COLOURS["new class"]
    if before is not None:
        text = f"{100 * before:.0f} → {text}"
        is_lower = after < before
        colour = _COLOURS["after, lower" if is_lower else "after, not lower"]
        axes.plot([before, after], [row, row], color=colour, linewidth=2)
        axes.plot(before, row, "o", color=_COLOURS["before"], clip_on=False)
    axes.plot(after, row, "o", color=colour, markersize=8, clip_on=False)
    axes.annotate(
        text,
        (1.02, row),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize="small",
    )


def _label_axes(axes, names, images, count):
    labels = [
        f"{plots.shortened(name, _MAX_NAME_LENGTH)} ({images[name]})"
        for name in names
    ]
    axes.set_yticks(range(len(names)), labels, fontsize="small")
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(-0.015, 1.015)
    axes.set_xticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
    shown = "" if len(names) == count else f"; {len(names)} of {count} classes"
    axes.set_xlabel(f"accuracy; in brackets, the images it is of{shown}")
    axes.grid(True, axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _accuracies(report):
    parts = []
    if report.old_accuracy is not None:
        parts.append(
            f"old classes {report.old_accuracy_before:.1%} → "
            f"{report.old_accuracy:.1%}"
        )
    if report.new_accuracy is not None:
        parts.append(f"new classes {report.new_accuracy:.1%}")
    return ", ".join(parts)
