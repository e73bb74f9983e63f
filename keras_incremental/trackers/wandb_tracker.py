"""Reports of tasks in Weights & Biases."""

from collections.abc import Mapping
from typing import Any

from keras_incremental.optional import imported
from keras_incremental.trackers.tracker import Tracker

_STEP = "task/index"


class WandB(Tracker):
    """Logs to a run of Weights & Biases: settings as config, and figures.

    Their x axis is `task/index`, so that they go with whatever else is logged
    to the run, epoch by epoch.

    Args:
        run: What `wandb.init` returned; by default the run that it began last.
        settings: As of `Tracker`.

    Raises:
        ImportError: If wandb is not installed.
        ValueError: If there is no run.
    """

    def __init__(self, run: Any = None, settings: Mapping | None = None):
        super().__init__(settings)
        run = imported("wandb").run if run is None else run
        if run is None:
            raise ValueError(
                "There is no run of Weights & Biases. Call wandb.init(project="
                "...) first, or pass WandB(run=...) what it returned."
            )
        self._run = run
        for group in ("task", "class", "results"):
            run.define_metric(f"{group}/*", step_metric=_STEP)

    def log_settings(self, settings: dict) -> None:
        """Adds to the run's config."""
        self._run.config.update(settings, allow_val_change=True)

    def log(self, index: int, values: Mapping[str, float]) -> None:
        """Logs figures at `task/index`."""
        self._run.log({_STEP: index, **values})
