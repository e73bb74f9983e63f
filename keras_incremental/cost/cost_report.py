"""The cost of a model, part by part: what `report` returns."""

import dataclasses
import pathlib

from keras_incremental._types import PathLike
from keras_incremental.cost import table
from keras_incremental.cost.energy import EnergyConstants
from keras_incremental.cost.part_cost import QUANTITIES, PartCost, ratio
from keras_incremental.reports.results import write_json


@dataclasses.dataclass(frozen=True)
class CostReport:
    """The cost of a model, part by part, and against no sharing.

    Attributes:
        rows: "base" (the whole base network: shared part, base branch, head),
            then "branch 1", ... without the shared part. A model that has no
            branch yet has a "next branch", as large as the base branch with a
            head as large as the latest. One row "network" for a model without
            a branch point.
        with_sharing: the sum of the rows; None without a branch point.
        without_sharing: every task a whole network, as wide as the base
            network, with a head of its own; None without a branch point.
        branch_at: name of the last shared layer; 0.0 where none is shared,
            1.0 where all are, None without a branch point.
        batch_size: images that share one reading of the weights.
        constants: energy of one operation, bytes of one value.
        trunk_cached: whether the outputs of the shared part are cached while a
            branch is trained.
        kept_bytes: Bytes of the sums of a closed form, which are stored with
            the model and not published; 0 without one.
    """

    rows: tuple[PartCost, ...]
    with_sharing: PartCost | None
    without_sharing: PartCost | None
    branch_at: str | float | None
    batch_size: int
    constants: EnergyConstants
    trunk_cached: bool
    kept_bytes: int = 0

    @property
    def ratios(self) -> dict[str, float | None]:
        """Total with sharing / total without, by quantity.

        None where a quantity was not measured, or is 0 without sharing; empty
        without a branch point.
        """
        if self.with_sharing is None:
            return {}
        return {
            quantity: ratio(self.with_sharing, self.without_sharing, quantity)
            for quantity in QUANTITIES
        }

    def __repr__(self):
        total = self.with_sharing or self.rows[0]
        return (
            f"<CostReport: {total.parameters:,} parameters, "
            f"{total.inference_macs:,.0f} MACs an image; print it for a table>"
        )

    def __str__(self) -> str:
        """Returns an aligned table of 80 columns for the terminal."""
        totals = ()
        if self.with_sharing is not None:
            totals = (self.with_sharing, self.without_sharing)
        run = table.block("Inference", table.INFERENCE, self.rows, totals)
        train = table.block("Training", table.TRAINING, self.rows, totals)
        return "\n\n".join([self._title(), run, train, self._notes()])

    def to_dict(self) -> dict:
        """Returns the report in plain JSON types; `ratios` included."""
        return {
            **dataclasses.asdict(self),
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "ratios": self.ratios,
        }

    def save(self, path: PathLike) -> pathlib.Path:
        """Writes the report as JSON, whole or not at all.

        Args:
            path: `str` or path-like, such as `cost.json`.

        Returns:
            `pathlib.Path(path)`.
        """
        return write_json(self.to_dict(), path)

    def _title(self) -> str:
        batches = f"per image, batches of {self.batch_size}"
        if self.branch_at is None:
            return f"Cost of the network, {batches}"
        return f"Cost of sharing {_layers_before(self.branch_at)}, {batches}"

    def _notes(self) -> str:
        constants = self.constants
        mac = 1e12 * (constants.add + constants.multiply)
        lines = [
            f"Energy: {mac:g} pJ a MAC, {1e12 * constants.dram_32_bits:g} pJ "
            f"for 32 bits of memory; {constants.bytes_per_value:g} bytes a "
            "value.",
            "MMACs: million multiply-accumulates. Moved: read from and written "
            "to memory.",
        ]
        if self.branch_at is not None:
            kept = (
                "the outputs of the shared layers are cached"
                if self.trunk_cached
                else "every step runs the shared layers"
            )
            lines.append(f"Training of a branch: {kept}.")
        if self.kept_bytes:
            lines.append(
                f"Sums kept with the model: {self.kept_bytes / 1e6:.1f} MB."
            )
        return "\n".join(lines)


def _layers_before(branch_at: str | float) -> str:
    """The shared layers in words."""
    if isinstance(branch_at, str):
        return f"the layers up to {branch_at!r}"
    return "all layers but the classifier" if branch_at else "no layers"
