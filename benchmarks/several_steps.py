"""Several train steps in one call: what it saves where a step is short.

    python benchmarks/several_steps.py

Learns the second task of the digits by EEIL with a small network, compiled
with other `steps_per_execution`, in turns in one process. Prints the time of a
step of `fit` as a ratio to that of single steps, and whether the weights are
the same.
"""

import os
import statistics

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import keras_incremental as ki

_AT_ONCE = flags.DEFINE_list(
    "steps_per_execution", ["1", "2", "5", "10", "100"], "The first is 1."
)
_EPOCHS = flags.DEFINE_integer("epochs", 20, "Of the task, and as many again.")
_BATCH = flags.DEFINE_integer("batch_size", 32, "Images of 8x8.")
_TURNS = flags.DEFINE_integer("turns", 5, "The first is not timed.")


def learn(tasks, at_once):
    """Returns the weights after two tasks, and seconds a step of the second."""
    keras.utils.set_random_seed(0)
    model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9), steps_per_execution=at_once
    )
    steps = Steps()
    incremental = ki.IncrementalCallback(
        ki.ExemplarMemory(capacity=100),
        ki.EEIL(finetune_epochs=_EPOCHS.value),
    )
    for task in tasks:
        steps.number = 0
        model.fit(
            task.train.batch(_BATCH.value),
            epochs=_EPOCHS.value,
            verbose=0,
            callbacks=[incremental, steps],
        )
    weights = [np.asarray(weight.value) for weight in model.weights]
    return weights, incremental.reports[-1].train_seconds / steps.number


class Steps(keras.callbacks.Callback):
    """Counts steps."""

    number = 0
    _last = 0

    def on_train_batch_end(self, batch, logs=None):
        self._last = batch + 1

    def on_epoch_end(self, epoch, logs=None):
        self.number += self._last


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    scenario = ki.ClassIncrementalScenario.from_arrays(
        *ki.scenarios.load_digits(), classes_per_task=2
    )
    tasks = list(scenario)[:2]
    choices = [int(text) for text in _AT_ONCE.value]
    seconds, weights = {at_once: [] for at_once in choices}, {}
    for turn in range(_TURNS.value):
        for at_once in choices:
            weights[at_once], taken = learn(tasks, at_once)
            if turn or _TURNS.value == 1:
                seconds[at_once].append(taken)
    print(
        f"keras {keras.__version__}, tensorflow {tf.__version__}, digits, "
        f"batches of {_BATCH.value}"
    )
    single = statistics.median(seconds[choices[0]])
    for at_once in choices:
        median = statistics.median(seconds[at_once])
        same = all(map(np.array_equal, weights[choices[0]], weights[at_once]))
        print(
            f"steps_per_execution={at_once}: {1e3 * median:.2f} ms a step, "
            f"ratio {median / single:.2f}, "
            f"weights {'the same' if same else 'OTHERS'} to the bit"
        )


if __name__ == "__main__":
    app.run(main)
