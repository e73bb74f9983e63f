"""Reports of tasks in TensorBoard."""

import os
from collections.abc import Mapping

import tensorflow as tf

from keras_incremental._types import PathLike
from keras_incremental.trackers.tracker import Tracker


class TensorBoard(Tracker):
    """Logs scalars, and the settings for TensorBoard's HParams page.

    That page compares runs: those of several folders below the one that
    `tensorboard --logdir` is given.

    Args:
        log_dir: `str` or path-like, a folder of this run alone.
        settings: As of `Tracker`.

    >>> import tempfile
    >>> board = TensorBoard(tempfile.mkdtemp(), {"data": "digits"})
    >>> board.log(0, {"task/new_accuracy": 0.9})
    """

    def __init__(self, log_dir: PathLike, settings: Mapping | None = None):
        super().__init__(settings)
        self._writer = tf.summary.create_file_writer(os.fspath(log_dir))

    def log_settings(self, settings: dict) -> None:
        """Writes hyperparameters."""
        # Here, as it takes a quarter of a second.
        from tensorboard.plugins.hparams import api

        with self._writer.as_default():
            api.hparams(settings)

    def log(self, index: int, values: Mapping[str, float]) -> None:
        """Writes scalars of the step `index`."""
        with self._writer.as_default(step=index):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()
