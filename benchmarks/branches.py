"""Branches: what adding one costs outside its training, task after task.

    python benchmarks/branches.py --tasks=11

Teaches a base and then one branch a task, and prints how often the train
function was traced, and the overhead of the 2nd and of the last branch.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from absl import app, flags

import keras_incremental as ki

_TASKS = flags.DEFINE_integer("tasks", 11, "Of two classes; the first: base.")
_PER_CLASS = flags.DEFINE_integer("per_class", 20, "Images of each class.")
_BACKBONE = flags.DEFINE_string("backbone", "resnet20", "Of ki.backbones.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of the whole; medians.")


def run_once() -> tuple[list[float], list[float], int]:
    """Returns overhead and evaluation seconds of each task, and traces."""
    random = np.random.default_rng(0)
    model = ki.IncrementalClassifier(
        getattr(ki.backbones, _BACKBONE.value)((32, 32, 3)), branch_at="stage2"
    )
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    incremental = ki.IncrementalCallback(method=ki.PartialSharing())
    shape = (2 * _PER_CLASS.value, 32, 32, 3)
    evaluation = []
    for task in range(_TASKS.value):
        images = random.integers(0, 256, shape).astype("uint8")
        labels = np.repeat([2 * task, 2 * task + 1], _PER_CLASS.value)
        model.fit(images, labels, epochs=1, verbose=0, callbacks=[incremental])
        started = time.perf_counter()
        model.evaluate(images, labels, verbose=0)
        evaluation.append(time.perf_counter() - started)
    overhead = [report.overhead_seconds for report in incremental.reports]
    return overhead, evaluation, model.train_function_traces


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    keras.utils.set_random_seed(0)
    runs = [run_once() for _ in range(_REPEATS.value)]
    overhead, evaluation, traces = zip(*runs, strict=True)
    print(
        f"keras {keras.__version__}, {_TASKS.value - 1} branches, "
        f"{_BACKBONE.value}"
    )
    print(f"traces: {max(traces)} of the train function")
    for name, figures in (("overhead", overhead), ("evaluate", evaluation)):
        second = statistics.median(run[2] for run in figures)
        last = statistics.median(run[-1] for run in figures)
        print(
            f"{name}: {second:.2f} s for branch 2, {last:.2f} s for branch "
            f"{_TASKS.value - 1}, ratio {last / second:.2f}"
        )


if __name__ == "__main__":
    app.run(main)
