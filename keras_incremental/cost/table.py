"""The cost report as text for the terminal."""

import dataclasses
import math
from collections.abc import Sequence

from keras_incremental.cost.part_cost import PartCost, ratio
from keras_incremental.reports.text_table import aligned


@dataclasses.dataclass(frozen=True)
class Quantity:
    """How a quantity is shown: its heading, and its unit by a factor."""

    name: str
    heading: str
    unit: str
    factor: float


INFERENCE = (
    Quantity("parameters", "parameters", "M", 1e-6),
    Quantity("bytes_stored", "stored", "MB", 1e-6),
    Quantity("inference_macs", "operations", "MMACs", 1e-6),
    Quantity("inference_bytes", "moved", "MB", 1e-6),
    Quantity("inference_energy", "energy", "mJ", 1e3),
    Quantity("inference_seconds", "time", "ms", 1e3),
)
TRAINING = (
    Quantity("training_macs", "operations", "MMACs", 1e-6),
    Quantity("training_bytes", "moved", "MB", 1e-6),
    Quantity("training_energy", "energy", "mJ", 1e3),
    Quantity("training_seconds", "time", "ms", 1e3),
)
_UNKNOWN = "-"
_MAX_DECIMALS = 6


def block(
    title: str,
    quantities: Sequence[Quantity],
    rows: Sequence[PartCost],
    totals: Sequence[PartCost] = (),
) -> str:
    """Returns one table: a row for each part, then totals and their ratio.

    Args:
        title: heading of the column of names.
        quantities: the other columns.
        rows: the parts.
        totals: none, or the total with and the one without sharing.

    >>> row = PartCost("base", 2_000_000, 8e6, 5e6, 0, 0, 0, 0, 0)
    >>> print(block("storage", INFERENCE[:2], [row]))
    storage  parameters  stored
                      M      MB
    base            2.0     8.0
    """
    parts = [*rows, *totals]
    names = [title, "", *(part.name for part in parts)]
    columns = [_column(quantity, parts) for quantity in quantities]
    if totals:
        names.append("with / without")
        for column, quantity in zip(columns, quantities, strict=True):
            share = ratio(*totals, quantity.name)
            column.append(_UNKNOWN if share is None else f"{share:.1%}")
    lines = aligned([names, *columns])
    if totals:
        lines.insert(2 + len(rows), "-" * max(map(len, lines)))
    return "\n".join(lines)


def _column(quantity: Quantity, parts: Sequence[PartCost]) -> list[str]:
    values = [getattr(part, quantity.name) for part in parts]
    scaled = [None if v is None else v * quantity.factor for v in values]
    decimals = _decimals([value for value in scaled if value])
    cells = [
        _UNKNOWN if value is None else f"{value:,.{decimals}f}"
        for value in scaled
    ]
    return [quantity.heading, quantity.unit, *cells]


def _decimals(values: Sequence[float]) -> int:
    """Enough for two digits of the smallest value, and one at least."""
    if not values:
        return 1
    return min(max(1 - math.floor(math.log10(min(values))), 1), _MAX_DECIMALS)
