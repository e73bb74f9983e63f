"""Growth: what a step costs outside its training, task after task.

    python benchmarks/growth.py --tasks=50

Teaches a small network two new classes a task and prints how often its
functions were traced, and whether the overhead grows with the tasks.
"""

import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from absl import app, flags

import keras_incremental as ki

_TASKS = flags.DEFINE_integer("tasks", 50, "Of two classes each.")
_PER_CLASS = flags.DEFINE_integer("per_class", 20, "Images of each class.")


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    incremental = ki.IncrementalCallback(
        ki.ExemplarMemory(capacity=2 * _TASKS.value),
        method=ki.EEIL(finetune_epochs=1),
    )
    shape = (2 * _PER_CLASS.value, 8, 8, 1)
    for task in range(_TASKS.value):
        images = random.integers(0, 256, shape).astype("uint8")
        labels = np.repeat([2 * task, 2 * task + 1], _PER_CLASS.value)
        model.fit(images, labels, epochs=1, verbose=0, callbacks=[incremental])
        model.evaluate(images, labels, verbose=0)
    overhead = [report.overhead_seconds for report in incremental.reports]
    print(f"keras {keras.__version__}, {_TASKS.value} tasks of 2 classes")
    print(
        f"traces: {model.train_function_traces} of the train function, "
        f"{model.test_function_traces} of the test function"
    )
    early = statistics.median(overhead[2:7])
    late = statistics.median(overhead[-5:])
    print(
        f"overhead of a step: median {early:.3f} s of tasks 2 to 6, "
        f"{late:.3f} s of the last five, ratio {late / early:.2f}"
    )


if __name__ == "__main__":
    app.run(main)
