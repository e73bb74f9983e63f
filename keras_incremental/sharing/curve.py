"""Accuracy and cost over the branch point."""

import dataclasses
import math
import pathlib
import textwrap

from matplotlib import ticker

from keras_incremental._types import PathLike
from keras_incremental.cost import CostReport
from keras_incremental.reports import plots
from keras_incremental.reports.results import write_json
from keras_incremental.reports.text_table import aligned
from keras_incremental.sharing.plots import curve_figure

_LONGEST_NAME = 19
_LINE = 80
_ROUNDING = 1e-9
_COLUMNS = (
    ("branch at", lambda p: str(p.branch_at)[:_LONGEST_NAME]),
    ("shared", lambda p: f"{100 * p.layers:.0f} %"),
    ("aware", lambda p: f"{100 * p.task_aware_accuracy:.1f}"),
    ("raw", lambda p: f"{100 * p.uncalibrated_accuracy:.1f}"),
    ("calib", lambda p: _calibrated(p)),
    ("added", lambda p: _added(p)),
    ("MACs", lambda p: f"{p.cost.ratios['inference_macs']:.2f}"),
    ("train", lambda p: f"{_branch_ratio(p, 'training_macs'):.2f}"),
    ("bytes", lambda p: f"{_branch_ratio(p, 'training_bytes'):.2f}"),
    ("energy", lambda p: f"{_branch_ratio(p, 'training_energy'):.2f}"),
    ("s/epoch", lambda p: f"{p.seconds_per_epoch:.2f}"),
)
_LEGEND = """\
shared: of the weight layers. Accuracy of the new tasks in %: aware, among the
classes of the image's own task; lost, of that to sharing; raw, among all
classes, logits as they are; calib, after calibration. added: parameters of all
branches. MACs: of inference, all tasks, against no sharing. train, bytes,
energy: of training a branch on an image, against a whole network. s/epoch:
measured."""


@dataclasses.dataclass(frozen=True)
class SharingPoint:
    """What was found at one branch point; accuracies are in [0, 1].

    Attributes:
        branch_at: the last shared layer; 0.0 or 1.0 before or after all.
        layers: share of the weight layers.
        task_aware_accuracy: That of the new tasks, among their own classes.
        uncalibrated_accuracy: That of the new tasks, among all classes, by
            the branches' own logits.
        accuracy: the same after calibration.
        uncalibrated_accuracy_of_all: That of all tasks, the base included.
        accuracy_of_all: the same after calibration.
        calibrated: whether there was a calibration.
        similarity: Similarity of each new task to its clone source.
        seconds_per_epoch: measured, mean over the new tasks.
        seconds: measured, of all steps as a whole.
        cost: counted, all branches.
    """

    branch_at: str | float
    layers: float
    task_aware_accuracy: float
    uncalibrated_accuracy: float
    accuracy: float
    uncalibrated_accuracy_of_all: float
    accuracy_of_all: float
    calibrated: bool
    similarity: tuple[float, ...]
    seconds_per_epoch: float
    seconds: float
    cost: CostReport


@dataclasses.dataclass(frozen=True)
class SharingCurve:
    """The points of a search, from none shared to all.

    Attributes:
        points: the first shares nothing.
        tolerance: accuracy that may be lost to sharing.
    """

    points: tuple[SharingPoint, ...]
    tolerance: float

    @property
    def least_accuracy(self) -> float:
        """Task-aware accuracy that a point must have to be chosen."""
        return self.points[0].task_aware_accuracy - self.tolerance

    @property
    def chosen(self) -> SharingPoint:
        """The deepest point within the tolerance of no sharing.

        Raises:
            ValueError: if no sharing point is; the nearest one is named.
        """
        shared = self.points[1:]
        within = [
            point
            for point in shared
            if self._loss(point) <= self.tolerance + _ROUNDING
        ]
        if within:
            return within[-1]
        if not shared:
            raise ValueError(
                "The search tried no sharing alone; expected points above 0."
            )
        nearest = max(shared, key=lambda point: point.task_aware_accuracy)
        least = math.ceil(1e4 * (self._loss(nearest) - _ROUNDING)) / 1e4
        raise ValueError(
            f"No branch point is within tolerance={self.tolerance:g} of "
            f"{self.points[0].task_aware_accuracy:.4f}, the accuracy without "
            f"sharing. The nearest is {nearest.branch_at!r} with "
            f"{nearest.task_aware_accuracy:.4f}: allow a tolerance of "
            f"{least:.4f}, train longer, or try earlier "
            "points."
        )

    def __repr__(self):
        return (
            f"<SharingCurve: {len(self.points)} points, chosen: "
            f"{self._chosen_or_none()!r}; print it for a table>"
        )

    def __str__(self) -> str:
        """Returns an aligned table for the terminal, and the choice."""
        columns = [[name, *map(cell, self.points)] for name, cell in _COLUMNS]
        losses = [f"{100 * self._loss(point):z.1f}" for point in self.points]
        columns.insert(3, ["lost", *losses])
        choice = textwrap.wrap(
            self._choice(),
            _LINE,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return "\n".join([*aligned(columns), "", _LEGEND, "", *choice])

    def to_dict(self) -> dict:
        """Returns all figures as JSON types."""
        return {
            "tolerance": self.tolerance,
            "chosen": self._chosen_or_none(),
            "points": [
                {
                    **dataclasses.asdict(point),
                    "similarity": list(point.similarity),
                    "cost": point.cost.to_dict(),
                }
                for point in self.points
            ],
        }

    def save(self, path: PathLike) -> pathlib.Path:
        """Writes `to_dict()` to a JSON file, whole or not at all."""
        return write_json(self.to_dict(), path)

    def plot(self, path: PathLike) -> pathlib.Path:
        """Draws accuracy and cost over the share of layers.

        Args:
            path: `str` or path-like; `.png`, `.svg` or `.pdf`.

        Returns:
            `pathlib.Path(path)`.

        Raises:
            ValueError: For another kind of file.
        """
        return plots.save(curve_figure(self), path)

    def _loss(self, point: SharingPoint) -> float:
        return self.points[0].task_aware_accuracy - point.task_aware_accuracy

    def _chosen_or_none(self):
        try:
            return self.chosen.branch_at
        except ValueError:
            return None

    def _choice(self) -> str:
        try:
            chosen = self.chosen
        except ValueError as error:
            return str(error)
        return (
            f"Chosen: {chosen.branch_at!r}, {100 * chosen.layers:.0f} % of the "
            f"layers shared. Accuracy against no sharing: "
            f"{-100 * self._loss(chosen):+z.1f} points "
            f"(a loss of {100 * self.tolerance:g} is allowed)."
        )


def _calibrated(point: SharingPoint) -> str:
    return f"{100 * point.accuracy:.1f}" if point.calibrated else "-"


def _added(point: SharingPoint) -> str:
    added = sum(row.parameters for row in point.cost.rows[1:])
    return ticker.EngFormatter(places=1, sep="")(added)


def _branch_ratio(point: SharingPoint, quantity: str) -> float:
    """Of the last branch against the whole base network."""
    rows = point.cost.rows
    return getattr(rows[-1], quantity) / getattr(rows[0], quantity)
