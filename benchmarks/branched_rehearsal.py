"""BranchedRehearsal: an epoch of a task, by the branches there are already.

    python benchmarks/branched_rehearsal.py
    python benchmarks/branched_rehearsal.py --train_trunk

Teaches tasks of random images, and prints the median seconds of an epoch of
each, without the first one, in which the train step is traced; the ratio of the
last task to the second; and how often the train function was traced.
"""

import os
import statistics
import time

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from absl import app, flags

import keras_incremental as ki

_TASKS = flags.DEFINE_integer("tasks", 5, "Of two classes; the first: base.")
_PER_CLASS = flags.DEFINE_integer("per_class", 300, "Images of each class.")
_MEMORY = flags.DEFINE_integer("memory", 200, "Exemplars in all.")
_EPOCHS = flags.DEFINE_integer("epochs", 6, "Of each task.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "")
_BACKBONE = flags.DEFINE_string("backbone", "resnet32", "Of ki.backbones.")
_BRANCH_AT = flags.DEFINE_string("branch_at", "stage2", "Of the backbone.")
_TRAIN_TRUNK = flags.DEFINE_bool("train_trunk", False, "Train the trunk on.")


class Seconds(keras.callbacks.Callback):
    """The seconds of each epoch."""

    def on_train_begin(self, logs=None):
        self.of_epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.of_epochs.append(time.perf_counter() - self._started)


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    model = ki.IncrementalClassifier(
        getattr(ki.backbones, _BACKBONE.value)((32, 32, 3)),
        branch_at=_BRANCH_AT.value,
    )
    model.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9))
    incremental = ki.IncrementalCallback(
        ki.ExemplarMemory(_MEMORY.value),
        ki.BranchedRehearsal(train_trunk=_TRAIN_TRUNK.value),
    )
    print(
        f"keras {keras.__version__}, {os.cpu_count()} cores; "
        f"{_BACKBONE.value}, branches at {_BRANCH_AT.value}, "
        f"train_trunk={_TRAIN_TRUNK.value}"
    )
    medians = []
    for task in range(_TASKS.value):
        seconds, shape = Seconds(), (2 * _PER_CLASS.value, 32, 32, 3)
        model.fit(
            random.integers(0, 256, shape).astype("uint8"),
            np.repeat([2 * task, 2 * task + 1], _PER_CLASS.value),
            batch_size=_BATCH_SIZE.value,
            epochs=_EPOCHS.value,
            verbose=0,
            callbacks=[incremental, seconds],
        )
        medians.append(statistics.median(seconds.of_epochs[1:]))
        print(
            f"task {task + 1}: {medians[-1]:.2f} s an epoch, "
            f"{incremental.reports[-1].overhead_seconds:.1f} s overhead"
        )
    print(
        f"task {_TASKS.value} to task 2: {medians[-1] / medians[1]:.2f}; "
        f"{model.train_function_traces} traces of the train function"
    )


if __name__ == "__main__":
    app.run(main)
