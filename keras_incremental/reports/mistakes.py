"""The images that were decided most wrongly, as one picture."""

import math
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib import figure
from numpy.typing import ArrayLike
from scipy import special

from keras_incremental._types import PathLike
from keras_incremental.reports import plots

_COLUMNS = 6
_MOST = 24
_MAX_NAME_LENGTH = 22


def mistakes_figure(
    images: ArrayLike,
    names: Sequence[str],
    scores: ArrayLike,
    class_names: Sequence[str],
) -> figure.Figure:
    """Returns a figure of the worst mistakes, those that look surest first.

    Args:
        images: raw images, `(images, height, width, channels)`.
        names: the true class of each.
        scores: `(images, classes)`, as `model.predict` returns them.
        class_names: the classes' names.

    Returns:
        A `matplotlib.figure.Figure` with up to 24 images, each under its class,
        the class that it was taken for, and how probable that seemed.

    Raises:
        ValueError: if a name is none of the classes.

    >>> images, scores = np.zeros((2, 8, 8, 1), "uint8"), [[2, 0], [1, 0]]
    >>> names = ["cat", "dog"]
    >>> picture = mistakes_figure(images, names, scores, names)
    >>> picture.axes[0].get_title()
    'dog\\ntaken for cat, 73 %'
    """
    true = np.array([list(class_names).index(name) for name in names], int)
    scores = np.asarray(scores, np.float64)
    found = scores.argmax(axis=1)
    surest = special.softmax(scores, axis=1).max(axis=1)
    wrong = np.flatnonzero(found != true)
    worst = wrong[np.argsort(-surest[wrong], kind="stable")][:_MOST]
    rows = max(math.ceil(len(worst) / _COLUMNS), 1)
    picture = figure.Figure(
        figsize=(2.0 * _COLUMNS, 2.35 * rows + 0.5), layout="constrained"
    )
    picture.suptitle(_title(len(wrong), len(true), len(worst)))
    for place, index in enumerate(worst, start=1):
        axes = picture.add_subplot(rows, _COLUMNS, place)
        _draw(axes, images[index])
        name, other = (
            plots.shortened(class_names[unit], _MAX_NAME_LENGTH)
            for unit in (true[index], found[index])
        )
        axes.set_title(
            f"{name}\ntaken for {other}, {100 * surest[index]:.0f} %",
            fontsize="small",
        )
    return picture


def plot_mistakes(
    images: ArrayLike,
    names: Sequence[str],
    scores: ArrayLike,
    class_names: Sequence[str],
    path: PathLike,
) -> pathlib.Path:
    """Writes the picture of `mistakes_figure`, whole or not at all.

    Args:
        images, names, scores, class_names: As of `mistakes_figure`.
        path: `str` or path-like; `.png`, `.svg` or `.pdf`.

    Returns:
        `pathlib.Path(path)`.

    Raises:
        ValueError: As `mistakes_figure`, or for another kind of file.
    """
    picture = mistakes_figure(images, names, scores, class_names)
    return plots.save(picture, path)


def _title(wrong: int, images: int, shown: int) -> str:
    if not wrong:
        return f"All {images} images were recognised"
    which = "" if shown == wrong else f"; the {shown} that seemed surest"
    return f"{wrong} of {images} images were not recognised{which}"


def _draw(axes, image):
    image = np.clip(np.asarray(image), 0, 255).astype(np.uint8)
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray")
    axes.set_axis_off()
