"""Text in columns."""

from collections.abc import Sequence


def aligned(columns: Sequence[Sequence[str]]) -> list[str]:
    """Returns lines of a first column to the left, all others to the right.

    >>> aligned([("method", "eeil"), ("final", "9")])
    ['method  final', 'eeil        9']
    """
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for name, *cells in zip(*columns, strict=True):
        padded = map(str.rjust, cells, widths[1:])
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip())
    return lines
