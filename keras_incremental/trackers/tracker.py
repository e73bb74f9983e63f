"""What all trackers log."""

import abc
import pathlib
from collections.abc import Mapping

from keras_incremental.callbacks import TaskCallback
from keras_incremental.training import TaskReport


class Tracker(TaskCallback, abc.ABC):
    """Logs the settings of a run once, and the figures of each task.

    Args:
        settings: Further settings to log, such as the name of the data set.
    """

    def __init__(self, settings: Mapping | None = None):
        super().__init__()
        self._settings: dict | None = dict(settings or {})

    def on_task_end(
        self, index: int, report: TaskReport, settings: Mapping
    ) -> None:
        """Logs a task, and before the first one the settings."""
        if self._settings is not None:
            self.log_settings(flat({**self._settings, **settings}))
            self._settings = None
        self.log(index, values_of(report))

    @abc.abstractmethod
    def log_settings(self, settings: dict) -> None:
        """Logs what is the same in all tasks.

        Args:
            settings: Of one level, `method.temperature`; numbers, truth values
                and text.
        """

    @abc.abstractmethod
    def log(self, index: int, values: Mapping[str, float]) -> None:
        """Logs the figures of a task.

        Args:
            index: Number of the task, from 0 on.
            values: Numbers by name: `task/new_accuracy`, `class/<name>`.
        """


def values_of(report: TaskReport) -> dict[str, float]:
    """Returns the figures of a report that are known, by name.

    >>> report = TaskReport([7], 1, 0, 2.0, 0.5, {}, published="served/3")
    >>> values_of(report)["task/published_version"]
    3
    """
    figures = {"accuracy": report.accuracy, **report.to_json()}
    found = {
        f"task/{name}": value
        for name, value in figures.items()
        if isinstance(value, (int, float))
    }
    if report.published is not None:
        version = int(pathlib.PurePath(report.published).name)
        found["task/published_version"] = version
    for name, accuracy in (report.accuracy_by_class or {}).items():
        found[f"class/{name}"] = accuracy
    return found


def flat(settings: Mapping, prefix: str = "") -> dict:
    """Returns settings of one level; the type of an object is its own value.

    >>> flat({"method": {"type": "EEIL", "copies": 2}, "augment": None})
    {'method': 'EEIL', 'method.copies': 2, 'augment': 'None'}
    """
    found: dict = {}
    for key, value in settings.items():
        name = prefix.removesuffix(".") if key == "type" else f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        else:
            is_plain = isinstance(value, (bool, int, float, str))
            found[name] = value if is_plain else str(value)
    return found
