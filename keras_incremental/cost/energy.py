"""Energy of multiply-accumulates and of memory traffic."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class EnergyConstants:
    """Energy of one operation of each kind, and the bytes of one value.

    Source: Horowitz, "Computing's energy problem (and what we can do about
    it)", ISSCC 2014: a 45 nm process at 0.9 V, 32-bit floats.

    Args:
        add: J of one addition.
        multiply: J of one multiplication.
        dram_32_bits: J of reading or writing 32 bits of DRAM.
        bytes_per_value: bytes of one weight or activation.

    >>> HOROWITZ_45NM.energy(macs=1e9, moved_bytes=1e6)  # J
    0.00476
    """

    add: float = 0.9e-12
    multiply: float = 3.7e-12
    dram_32_bits: float = 640e-12
    bytes_per_value: float = 4

    def energy(self, macs: float, moved_bytes: float) -> float:
        """Returns J: `macs * (add + multiply) + bytes / 4 * dram_32_bits`."""
        arithmetic = macs * (self.add + self.multiply)
        return arithmetic + moved_bytes / 4 * self.dram_32_bits


HOROWITZ_45NM = EnergyConstants()
"""The energy of operations at 45 nm (Horowitz, ISSCC 2014)."""
