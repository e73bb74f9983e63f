"""Reports of tasks in MLflow."""

import re
import zlib
from collections.abc import Mapping

from keras_incremental.optional import imported
from keras_incremental.trackers.tracker import Tracker

_AT_ONCE = 1000  # metrics that MLflow takes in one call


class MLflow(Tracker):
    """Logs to a run of MLflow: settings as parameters, figures as metrics.

    The step of a metric is the number of its task. Where a name has a
    character that MLflow refuses, it has `_` and a checksum instead.

    Args:
        run_id: Of the run. By default the active one; as ever in MLflow, one
            is started if there is none.
        settings: As of `Tracker`.

    Raises:
        ImportError: If MLflow is not installed.
    """

    def __init__(
        self, run_id: str | None = None, settings: Mapping | None = None
    ):
        super().__init__(settings)
        self._mlflow = imported("mlflow")
        self._run_id = run_id

    def log_settings(self, settings: dict) -> None:
        """Logs parameters."""
        self._mlflow.log_params(settings, run_id=self._run_id)

    def log(self, index: int, values: Mapping[str, float]) -> None:
        """Logs metrics of the step `index`."""
        items = [(_allowed(name), value) for name, value in values.items()]
        for first in range(0, len(items), _AT_ONCE):
            part = dict(items[first : first + _AT_ONCE])
            self._mlflow.log_metrics(part, step=index, run_id=self._run_id)


def _allowed(name: str) -> str:
    """Returns a name that MLflow takes, and that no other one becomes.

    >>> _allowed("class/wiener dog"), _allowed("class/../dog")
    ('class/wiener dog', 'class/___dog_74a90b87')
    """
    group, _, rest = name.partition("/")
    safe = re.sub(r"[^\w -]", "_", rest)
    if safe != rest:
        safe = f"{safe}_{zlib.crc32(rest.encode()):08x}"
    return f"{group}/{safe}"
