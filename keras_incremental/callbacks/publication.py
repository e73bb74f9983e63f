"""What becomes of a model after a task: published, or not and why."""

import dataclasses
from collections.abc import Sequence

from keras_incremental.distribution import is_chief
from keras_incremental.export import (
    Gate,
    check_publication,
    publish,
    published_version,
)
from keras_incremental.files import check_writable
from keras_incremental.models import IncrementalClassifier
from keras_incremental.training import ClassCounts, TaskReport, check_coverage


class Publication:
    """Publishes a model after a task, if a gate lets it out.

    Args:
        base: The folder of a served model's versions, or `None` for none.
        gate: a `Gate`, or `None` to publish always.

    Raises:
        TypeError, ValueError: for a gate that is none, or without a folder.
    """

    def __init__(self, base, gate: Gate | None):
        if gate is not None and not isinstance(gate, Gate):
            raise TypeError(
                f"publish_if={gate!r}; expected a keras_incremental.export."
                "Gate, such as Gate(max_old_accuracy_drop=0.02), or None."
            )
        if gate is not None and base is None:
            raise ValueError(
                "publish_if was passed without publish_to. Pass the folder "
                "that the server polls as publish_to."
            )
        self._base, self._gate = base, gate

    def check(
        self,
        model: IncrementalClassifier,
        new_names: Sequence[str],
    ) -> None:
        """Refuses before a task what would fail after it.

        Raises:
            TypeError, ValueError, OSError: as `publish`.
        """
        if self._base is None:
            return
        folder, _ = check_publication(
            self._base, [*model.class_names, *new_names], model.input_shape[1:]
        )
        if is_chief(model.distribute_strategy):
            check_writable(folder)

    def check_validation(
        self, counts: ClassCounts, known: Sequence, new: Sequence
    ) -> None:
        """Refuses validation data by which the gate cannot judge.

        Raises:
            ValueError: with the classes in question.
        """
        check_coverage(counts, known, new, is_judged=self._gate is not None)

    def __call__(
        self,
        model: IncrementalClassifier,
        report: TaskReport,
        is_resumed: bool = False,
    ) -> TaskReport:
        """Publishes the model, or says why not; the chief alone writes.

        Args:
            model: as a task has left it.
            report: Of the task.
            is_resumed: whether an earlier process may have published it.

        Returns:
            The report with what became of the model.
        """
        if self._base is None:
            return report
        refusal = self._gate and self._gate.refusal(report)
        if refusal:
            return dataclasses.replace(report, not_published=refusal)
        if not is_chief(model.distribute_strategy):
            return report
        version = published_version(model, self._base) if is_resumed else None
        if version is None:
            version = publish(
                model, self._base, report=report.to_json(), verbose=0
            )
        return dataclasses.replace(report, published=str(version))
