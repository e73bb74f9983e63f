"""What all plots have in common."""

import pathlib

from keras_incremental.files import atomic_write

DPI = 150


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


def literal(text):
    """`text` such that matplotlib does not read `$` as mathematics."""
    return str(text).replace("$", r"\$")


def shortened(text, length):
    """At most `length` characters of `text`, as `literal`."""
    text = str(text)
    if len(text) > length:
        text = text[: length - 1] + "…"
    return literal(text)
