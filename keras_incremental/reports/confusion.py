"""The picture of which classes are taken for which."""

import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib import colors, figure, ticker
from numpy.typing import ArrayLike

from keras_incremental._types import PathLike
from keras_incremental.reports import plots

_MAX_CLASSES_WITH_NUMBERS = 20
_MAX_NAMES = 40
_MAX_NAME_LENGTH = 24
_ROOT_TICKS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def confusion_figure(
    matrix: ArrayLike,
    class_names: Sequence[str],
    task_boundaries: Sequence[int] = (),
    title: str | None = None,
) -> figure.Figure:
    """Returns a figure of the row-normalised confusion matrix.

    A cell is the share of its row's (the true class') samples; a row without
    samples is grey. Up to 20 classes the cells hold the share in percent. Above
    20 the colour follows the square root of the share, since mistakes spread
    over many classes are small; above 40 only every so many are named. The
    title has the accuracy and the number of images, the names of rows that of
    each class.

    Args:
        matrix: Counts, rows = true, columns = predicted, in order of arrival,
            shape `(classes, classes)`.
        class_names: Names in order of arrival, length `classes`.
        task_boundaries: Number of classes seen after each task, such as
            `[50, 60, 70]`; a line is drawn between tasks.
        title: Above accuracy and images, if any.

    Returns:
        A `matplotlib.figure.Figure`; `figure.axes[0].images[0]` holds the
        shares.

    Example:

    >>> picture = confusion_figure([[3, 1], [0, 4]], ["cat", "dog"])
    >>> picture.axes[0].images[0].get_array().tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    counts = np.asarray(matrix)
    shares = _row_shares(counts)
    side = float(np.clip(0.42 * len(shares), 3.2, 8.0))
    picture, axes = plots.new_figure(side + 2.6, side + 1.6)
    numbered = len(shares) <= _MAX_CLASSES_WITH_NUMBERS
    image = axes.imshow(
        shares,
        cmap=matplotlib.colormaps["Blues"].with_extremes(bad="0.8"),
        norm=colors.PowerNorm(1.0 if numbered else 0.5, vmin=0.0, vmax=1.0),
    )
    picture.colorbar(
        image,
        ax=axes,
        shrink=0.8,
        ticks=ticker.MultipleLocator(0.2) if numbered else _ROOT_TICKS,
        format=ticker.PercentFormatter(1.0, decimals=0),
        label="share of the true class",
    )
    images = counts.sum(axis=1)
    _name_classes(axes, class_names, images)
    plots.set_title(axes, title, _accuracy(np.trace(counts), images))
    for boundary in task_boundaries[:-1]:
        axes.axhline(boundary - 0.5, color="#D55E00", linewidth=0.8)
        axes.axvline(boundary - 0.5, color="#D55E00", linewidth=0.8)
    if numbered:
        _write_numbers(axes, shares)
    return picture


def plot_confusion(
    matrix: ArrayLike,
    class_names: Sequence[str],
    path: PathLike,
    task_boundaries: Sequence[int] = (),
    title: str | None = None,
) -> pathlib.Path:
    """Writes the picture of `confusion_figure`, whole or not at all.

    Args:
        matrix: As of `confusion_figure`.
        class_names: As of `confusion_figure`.
        path: `str` or path-like; `.png`, `.svg` or `.pdf`.
        task_boundaries, title: As of `confusion_figure`.

    Returns:
        `pathlib.Path(path)`.

    Raises:
        ValueError: For another kind of file.
    """
    picture = confusion_figure(matrix, class_names, task_boundaries, title)
    return plots.save(picture, path)


def _row_shares(counts):
    """`counts` with rows that sum to 1, NaN where there is no sample."""
    samples = counts.sum(axis=1, keepdims=True)
    return np.where(samples > 0, counts / np.maximum(samples, 1), np.nan)


def _accuracy(hits, images):
    """Returns accuracy and images in words."""
    accuracy = hits / max(images.sum(), 1)
    each = dict.fromkeys([f"{images.min():g}", f"{images.max():g}"])
    return (
        f"accuracy {accuracy:.1%} of {images.sum():g} images, "
        f"{' to '.join(each)} a class"
    )


def _name_classes(axes, class_names, images):
    step = -(-len(class_names) // _MAX_NAMES)
    positions = range(0, len(class_names), step)
    names = [
        plots.shortened(name, _MAX_NAME_LENGTH) for name in class_names[::step]
    ]
    size = "medium" if len(class_names) <= 20 else "x-small"
    axes.set_xticks(positions, names, rotation=90, fontsize=size)
    rows = [
        f"{name} ({count:g})"
        for name, count in zip(names, images[::step], strict=True)
    ]
    axes.set_yticks(positions, rows, fontsize=size)
    named = "" if step == 1 else f" (one in {step} is named)"
    axes.set_xlabel(f"predicted class{named}")
    axes.set_ylabel("true class (images)")


def _write_numbers(axes, shares):
    """Writes the percentage into each cell that is not empty."""
    for row, column in np.argwhere(shares >= 0.005):
        share = shares[row, column]
        axes.text(
            column,
            row,
            f"{100 * share:.0f}",
            ha="center",
            va="center",
            fontsize="small",
            color="white" if share > 0.55 else "black",
        )
