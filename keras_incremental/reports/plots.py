"""What all plots have in common."""

import pathlib

from keras_incremental.files import atomic_write

DPI = 150
_FORMATS = (".png", ".svg", ".pdf")


def save(picture, path):
    """Writes the figure `picture` to `path`, whole or not at all.

    Args:
        picture: A `matplotlib.figure.Figure`.
        path: `str` or path-like; the suffix chooses the kind of file.

    Returns:
        `pathlib.Path(path)`.

    Raises:
        ValueError: If the suffix is not `.png`, `.svg` or `.pdf`.
    """
    path = pathlib.Path(path)
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise ValueError(
            f"{str(path)!r} does not end in one of {', '.join(_FORMATS)}. "
            "Choose one of them for the picture."
        )
    with atomic_write(path) as file:
        picture.savefig(file, format=suffix[1:], dpi=DPI)
    return path


def literal(text):
    """`text` such that matplotlib does not read `$` as mathematics."""
    return str(text).replace("$", r"\$")
