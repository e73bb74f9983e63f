"""What one task did and took."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TaskReport:
    """What learning one task did and took.

    Attributes:
        new_labels: labels of the classes that were new.
        epochs: epochs run, all phases together.
        exemplars: images in the memory after the task.
        train_seconds: in epochs, validation left out.
        overhead_seconds: in everything else but validation: reading the data,
            growth, teacher, balanced set, selection, memory update.
        details: what the method notes about the task.
    """

    new_labels: list
    epochs: int
    exemplars: int
    train_seconds: float
    overhead_seconds: float
    details: dict
