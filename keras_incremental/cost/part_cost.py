"""The cost of one part of a model."""

import dataclasses
from collections.abc import Sequence

from keras_incremental.cost.counting import Work
from keras_incremental.cost.energy import EnergyConstants


@dataclasses.dataclass(frozen=True)
class PartCost:
    """What one part of a model takes to store, to run and to train.

    Attributes:
        name: Name of the part.
        parameters: weights in use; statistics of batch normalisation are
            weights, columns that a head holds in reserve are not.
        bytes_stored: Bytes of these weights.
        inference_macs: multiply-accumulates of one image.
        inference_bytes: read from and written to memory for one image.
        inference_energy: J for one image.
        training_macs: For one image, forward and backward.
        training_bytes: For one image, the update included.
        training_energy: J for one image.
        inference_seconds: measured, for one image; None if not measured.
        training_seconds: measured, for one image; None if not measured.
    """

    name: str
    parameters: int
    bytes_stored: float
    inference_macs: float
    inference_bytes: float
    inference_energy: float
    training_macs: float
    training_bytes: float
    training_energy: float
    inference_seconds: float | None = None
    training_seconds: float | None = None


QUANTITIES = tuple(field.name for field in dataclasses.fields(PartCost))[1:]


def part_cost(
    name: str,
    parameters: int,
    inference: Work,
    training: Work,
    constants: EnergyConstants,
) -> PartCost:
    """Turns counted work into bytes and energy.

    Args:
        name: Name of the part.
        parameters: weights in use.
        inference: Work of inference for one image.
        training: Work of training for one image.
        constants: bytes of one value and energy of one operation.

    >>> from keras_incremental.cost.energy import HOROWITZ_45NM
    >>> cost = part_cost("p", 10, Work(5, 7), Work(9, 8), HOROWITZ_45NM)
    >>> cost.bytes_stored, cost.inference_bytes, cost.training_macs
    (40, 28, 9)
    """
    size = constants.bytes_per_value
    return PartCost(
        name=name,
        parameters=parameters,
        bytes_stored=parameters * size,
        inference_macs=inference.macs,
        inference_bytes=inference.values * size,
        inference_energy=constants.energy(
            inference.macs, inference.values * size
        ),
        training_macs=training.macs,
        training_bytes=training.values * size,
        training_energy=constants.energy(training.macs, training.values * size),
    )


def total(name: str, parts: Sequence[PartCost]) -> PartCost:
    """Returns the sum of parts; None where a part has no value."""
    sums = {}
    for quantity in QUANTITIES:
        values = [getattr(part, quantity) for part in parts]
        sums[quantity] = None if None in values else sum(values)
    return PartCost(name, **sums)


def ratio(part: PartCost, whole: PartCost, quantity: str) -> float | None:
    """Returns `part / whole` of a quantity; None if it has no value."""
    value, reference = getattr(part, quantity), getattr(whole, quantity)
    return value / reference if value is not None and reference else None
