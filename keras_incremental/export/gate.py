"""What a model must be worth before it is published."""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Gate:
    """Refuses to publish a model that has become too bad.

    Pass it as `IncrementalCallback(publish_if=...)`, and to `fit` validation
    data of old and new classes, on which it judges. A refusal leaves the
    version that is served as it is; the task stays learned, and its report says
    why. Subclass it and override `refusal` for other rules.

    Args:
        max_old_accuracy_drop: how much accuracy the classes known before may
            lose in one task, 0 to 1; `None` allows any loss.
        min_new_accuracy: the least accuracy on the new classes, 0 to 1; `None`
            allows any.

    Raises:
        ValueError: if a bound is not in [0, 1], or there is none.

    >>> Gate(max_old_accuracy_drop=0.02, min_new_accuracy=0.6)
    Gate(max_old_accuracy_drop=0.02, min_new_accuracy=0.6)
    """

    max_old_accuracy_drop: float | None = None
    min_new_accuracy: float | None = None

    def __post_init__(self):
        bounds = dataclasses.asdict(self)
        for name, bound in bounds.items():
            if bound is not None and not (
                isinstance(bound, (int, float)) and 0 <= bound <= 1
            ):
                raise ValueError(
                    f"{name}={bound!r}; expected a number from 0 to 1, or None."
                )
        if not any(bound is not None for bound in bounds.values()):
            raise ValueError(
                "A Gate without a bound refuses nothing. Pass "
                "max_old_accuracy_drop or min_new_accuracy."
            )

    def refusal(self, report: Any) -> str | None:
        """Returns why a model must not be published, or `None` if it may.

        Args:
            report: the `TaskReport` of the task, with accuracies.
        """
        reasons = [self._loss(report), self._lack(report)]
        return " ".join(filter(None, reasons)) or None

    def _loss(self, report) -> str | None:
        bound, before = self.max_old_accuracy_drop, report.old_accuracy_before
        if bound is None or before is None:
            return None
        drop = before - report.old_accuracy
        # A drop of just the bound passes, however its difference is rounded.
        if drop <= bound or math.isclose(drop, bound, abs_tol=1e-9):
            return None
        return (
            f"the accuracy of old classes fell from {before:.1%} to "
            f"{report.old_accuracy:.1%}, by more than {bound:.1%}."
        )

    def _lack(self, report) -> str | None:
        bound, accuracy = self.min_new_accuracy, report.new_accuracy
        if bound is None or accuracy is None or accuracy >= bound:
            return None
        return (
            f"the accuracy of new classes is {accuracy:.1%}, less than "
            f"{bound:.1%}."
        )
