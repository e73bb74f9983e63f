"""Reports of tasks, where experiments are tracked.

Each is a callback to pass beside the `IncrementalCallback`; the package that it
writes to is imported by its constructor:

    model.fit(x, y, callbacks=[incremental, ki.trackers.MLflow()])

A tracker of your own subclasses `Tracker`, with two short methods.
"""

from keras_incremental.trackers.mlflow_tracker import MLflow
from keras_incremental.trackers.tensorboard_tracker import TensorBoard
from keras_incremental.trackers.tracker import Tracker
from keras_incremental.trackers.wandb_tracker import WandB

__all__ = ["MLflow", "TensorBoard", "Tracker", "WandB"]
