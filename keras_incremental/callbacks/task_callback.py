"""A Keras callback that hears of tasks."""

from collections.abc import Mapping

import keras

from keras_incremental.training import TaskReport


class TaskCallback(keras.callbacks.Callback):
    """A Keras callback that is told when a task has been learned.

    Pass it to `fit` beside an `IncrementalCallback`. It is told after the
    model was published, or not; an error that it raises leaves the task
    learned. A fit that a backup has finished already is told of again, since
    the process before may have been killed in between.

    >>> class Collect(TaskCallback):
    ...     found = []
    ...     def on_task_end(self, index, report, settings):
    ...         self.found.append(report.new_accuracy)
    """

    def on_task_end(
        self, index: int, report: TaskReport, settings: Mapping
    ) -> None:
        """Called at the end of each task, of several workers on the chief.

        Args:
            index: Number of the task, from 0 on.
            report: What it did, took and was worth.
            settings: Method, memory, augmentation, seed, epochs, batch size and
                optimizer, each with its arguments; nested, of JSON types.
        """
