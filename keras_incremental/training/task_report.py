"""What one task did, took and was worth."""

import dataclasses
from collections.abc import Iterable, Mapping

from keras_incremental.labels import listed

_MOST_ROWS = 20


@dataclasses.dataclass(frozen=True)
class TaskReport:
    """What learning one task did, took and was worth; `print` it.

    Accuracies are in [0, 1], over the images of `fit`'s validation data, all
    known classes competing. They are `None` where there is none, or none of the
    classes in question. Old classes are those that the model knew before.

    Attributes:
        new_labels: labels of the classes that were new.
        epochs: epochs run, all phases together.
        exemplars: images in the memory after the task.
        train_seconds: in epochs, validation left out.
        overhead_seconds: in everything else but validation: reading the data,
            growth, teacher, balanced set, selection, memory update.
        details: what the method notes about the task.
        new_names: names of the new classes.
        images_by_class: images in the task's data, by name of the class.
        validation_images_by_class: the same of the validation data, or `None`.
        accuracy_by_class_before: by name of the class, before the task.
        accuracy_by_class: after it.
        notes: what a person should know about the task, a sentence each.
        published: path of the version that was published, or `None`.
        not_published: why the model was not published, or `None`.

    >>> report = TaskReport(
    ...     [7], 1, 0, 1.0, 0.1, {}, ["seven"], {"seven": 50},
    ...     {"one": 10, "two": 30, "seven": 10}, {"one": 1.0, "two": 0.8},
    ...     {"one": 0.9, "two": 0.7, "seven": 0.6})
    >>> report.old_accuracy_before, report.old_accuracy, report.new_accuracy
    (0.85, 0.75, 0.6)
    """

    new_labels: list
    epochs: int
    exemplars: int
    train_seconds: float
    overhead_seconds: float
    details: dict
    new_names: list[str] = dataclasses.field(default_factory=list)
    images_by_class: dict[str, int] = dataclasses.field(default_factory=dict)
    validation_images_by_class: dict[str, int] | None = None
    accuracy_by_class_before: dict[str, float] | None = None
    accuracy_by_class: dict[str, float] | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    published: str | None = None
    not_published: str | None = None

    @property
    def accuracy(self) -> float | None:
        """Accuracy on all classes after the task."""
        return self._accuracy(self.accuracy_by_class, self.accuracy_by_class)

    @property
    def old_accuracy_before(self) -> float | None:
        """Accuracy on old classes before the task."""
        before = self.accuracy_by_class_before
        return self._accuracy(before, before)

    @property
    def old_accuracy(self) -> float | None:
        """Accuracy on old classes after the task."""
        before = self.accuracy_by_class_before
        return self._accuracy(self.accuracy_by_class, before)

    @property
    def new_accuracy(self) -> float | None:
        """Accuracy on new classes after the task."""
        return self._accuracy(self.accuracy_by_class, self.new_names)

    def to_json(self) -> dict:
        """Returns the report as JSON types, its accuracies included."""
        return {
            **dataclasses.asdict(self),
            "old_accuracy_before": self.old_accuracy_before,
            "old_accuracy": self.old_accuracy,
            "new_accuracy": self.new_accuracy,
        }

    def _accuracy(
        self, by_class: Mapping[str, float] | None, names: Iterable[str] | None
    ) -> float | None:
        """Returns the accuracy over all images of some classes."""
        images = self.validation_images_by_class or {}
        names = [name for name in names or () if images.get(name)]
        if not by_class or not names:
            return None
        hits = sum(by_class[name] * images[name] for name in names)
        return hits / sum(images[name] for name in names)

    def __repr__(self):
        return (
            f"<TaskReport: new classes {listed(self.new_names)}: "
            f"{_percent(self.new_accuracy)}; old classes: "
            f"{_percent(self.old_accuracy_before)} before, "
            f"{_percent(self.old_accuracy)} after; print it for a table>"
        )

    def __str__(self):
        rows = [
            ("class", "images", "before", "after"),
            *self._class_rows(),
            ("old", "", _percent(self.old_accuracy_before),
             _percent(self.old_accuracy)),
            ("new", str(sum(map(self._images, self.new_names))), "",
             _percent(self.new_accuracy)),
        ]  # fmt: skip
        width = max(len(row[0]) for row in rows)
        lines = [
            f"{name:{width}}  {images:>7}  {before:>7}  {after:>7}"
            for name, images, before, after in rows
        ]
        return "\n".join([*lines, *self._sentences()])

    def _class_rows(self) -> list[tuple[str, str, str, str]]:
        """Returns a row for each class, those first that lost the most."""
        before, after = self.accuracy_by_class_before, self.accuracy_by_class
        before, after = before or {}, after or {}
        old = sorted(before, key=lambda name: after[name] - before[name])
        others = set(self.images_by_class) - {*old, *self.new_names}
        names = [*self.new_names, *old, *sorted(others)]
        rows = [
            (
                name,
                str(self._images(name)),
                _percent(before.get(name)),
                _percent(after.get(name)),
            )
            for name in names[:_MOST_ROWS]
        ]
        if more := names[_MOST_ROWS:]:
            rows.append((f"... {len(more)} more", "", "", ""))
        return rows

    def _images(self, name: str) -> int:
        return self.images_by_class.get(name, 0)

    def _sentences(self) -> list[str]:
        """Returns what is said below the table."""
        sentences = [
            f"{self.epochs} epochs, {self.train_seconds:.1f} s of training; "
            f"{self.exemplars} exemplars in the memory.",
            *self.notes,
        ]
        if self.published is not None:
            sentences.append(f"Published as {self.published}.")
        if self.not_published is not None:
            sentences.append(f"Not published: {self.not_published}")
        return sentences


def _percent(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{accuracy:.1%}"
