"""Numbers of bytes, as people write them."""

import decimal
import numbers
import re

_UNITS = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_bytes(size: int | str, name: str = "budget") -> int:
    """Returns a number of bytes.

    Args:
        size: An integer of bytes, or a text such as "50MB", "1.5 GB" or
            "64MiB": kB, MB, GB, TB are powers of 1000; KiB, MiB, GiB, TiB
            powers of 1024. Parts of a byte are dropped.
        name: The name of the argument, for error messages.

    Raises:
        TypeError: For anything but an integer or a text.
        ValueError: For a text of another form, an unknown unit, or less than
            one byte.

    >>> parse_bytes("50MB"), parse_bytes("1.5KiB")
    (50000000, 1536)
    """
    if isinstance(size, str):
        count = _parsed(size, name)
    elif isinstance(size, numbers.Integral) and not isinstance(size, bool):
        count = int(size)
    else:
        raise TypeError(
            f"{name}={size!r} is a {type(size).__name__}; expected an integer "
            f'of bytes or a text such as {name}="50MB".'
        )
    if count < 1:
        raise ValueError(f"{name}={size!r}; expected one byte or more.")
    return count


def _parsed(text: str, name: str) -> int:
    found = _SIZE.fullmatch(text)
    unit = found and (found[2] or "B")
    if unit not in _UNITS:
        raise ValueError(
            f"{name}={text!r}; expected a number and a unit, e.g. "
            f'{name}="50MB". Units: {", ".join(_UNITS)}.'
        )
    return int(decimal.Decimal(found[1]) * _UNITS[unit])
