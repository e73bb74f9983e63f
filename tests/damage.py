"""Damage to the bytes of a file, and what readers make of it."""

from collections.abc import Callable, Iterator


def damaged(content: bytes, count: int, random) -> Iterator[bytes]:
    """Yields copies: a bit flipped, cut off, two parts swapped, in turn.

    Args:
        content: Of a file.
        count: How many copies.
        random: A `numpy.random.Generator`.
    """
    kinds = (_flipped, _cut_off, _swapped)
    for number in range(count):
        yield kinds[number % len(kinds)](content, random)


def _flipped(content, random):
    copy = bytearray(content)
    copy[random.integers(len(copy))] ^= 1 << int(random.integers(8))
    return bytes(copy)


def _cut_off(content, random):
    return content[: random.integers(len(content))]


def _swapped(content, random):
    """Swaps two parts of 1 to 64 bytes, as a file system mixes up blocks."""
    size = int(random.integers(1, min(65, len(content) // 2)))
    first, second = sorted(
        int(place) for place in random.integers(len(content) - size + 1, size=2)
    )
    second = max(second, min(first + size, len(content) - size))
    first = min(first, second - size)
    copy = bytearray(content)
    copy[first : first + size] = content[second : second + size]
    copy[second : second + size] = content[first : first + size]
    return bytes(copy)


def count_reads(reads: Iterator[Callable], right, named: str = "") -> dict:
    """Counts what came of reads of damaged files.

    Args:
        reads: functions without arguments, each called before the next is made.
        right: What a read may return: a list of values.
        named: A text that the error of a refused read must hold.

    Returns:
        Figures by name.
    """
    figures = {"damaged": 0, "refused": 0, "read right": 0, "wrong": 0}
    for read in reads:
        figures["damaged"] += 1
        try:
            outcome = "read right" if read() in right else "wrong"
        except Exception as error:
            outcome = "refused" if named in str(error) else "wrong"
        figures[outcome] += 1
    return figures
