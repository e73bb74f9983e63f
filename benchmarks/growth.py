"""Growth: what a step costs outside its training, task after task.

    python benchmarks/growth.py --tasks=50

Teaches a small network two new classes a task and prints how often its
functions were traced, whether the overhead and the memory of the process grow
with the tasks, and how long whole tasks take beside the usual way: a network
with a new, wider head for each task, compiled anew (plain training without
exemplars or a teacher, so that it has less to do).
"""

import os
import resource
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from absl import app, flags

import keras_incremental as ki

_TASKS = flags.DEFINE_integer("tasks", 50, "Of two classes each.")
_PER_CLASS = flags.DEFINE_integer("per_class", 20, "Images of each class.")
_REBUILT_TASKS = flags.DEFINE_integer(
    "rebuilt_tasks", None, "Of the usual way, 3 or more; as many by default."
)
_SETTLED = 7  # tasks after which the process has all that it needs


class Growing:
    """Ours: one model for all tasks."""

    def __init__(self):
        self.model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
        self.model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
        self.callback = ki.IncrementalCallback(
            ki.ExemplarMemory(capacity=2 * _TASKS.value),
            method=ki.EEIL(finetune_epochs=1),
        )

    def learn(self, images, labels):
        """One task, and its evaluation."""
        self.model.fit(
            images, labels, epochs=1, verbose=0, callbacks=[self.callback]
        )
        self.model.evaluate(images, labels, verbose=0)


class Rebuilt:
    """A wider head for each task, compiled anew."""

    def __init__(self):
        self.backbone = ki.backbones.small((8, 8, 1))
        self.head = None

    def learn(self, images, labels):
        """One task, and its evaluation."""
        head = keras.layers.Dense(int(labels.max()) + 1)
        head.build((None, self.backbone.output_shape[-1]))
        if self.head is not None:
            old = self.head.units
            kernel, bias = head.get_weights()
            kernel[:, :old], bias[:old] = self.head.get_weights()
            head.set_weights([kernel, bias])
        self.head = head
        model = keras.Sequential([self.backbone, head])
        model.compile(
            keras.optimizers.SGD(0.05, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(images, labels, epochs=1, verbose=0)
        model.evaluate(images, labels, verbose=0)


def learn_all(learner, tasks):
    """Returns the seconds of each task, and the peak memory after it, in MB."""
    random = np.random.default_rng(0)
    shape = (2 * _PER_CLASS.value, 8, 8, 1)
    seconds, peaks = [], []
    for task in range(tasks):
        images = random.integers(0, 256, shape).astype("uint8")
        labels = np.repeat([2 * task, 2 * task + 1], _PER_CLASS.value)
        started = time.perf_counter()
        learner.learn(images, labels)
        seconds.append(time.perf_counter() - started)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peaks.append(peak / 1024)
    return seconds, peaks


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    keras.utils.set_random_seed(0)
    growing = Growing()
    seconds, peaks = learn_all(growing, _TASKS.value)
    rebuilt_tasks = _REBUILT_TASKS.value or _TASKS.value
    rebuilt_seconds, _ = learn_all(Rebuilt(), rebuilt_tasks)
    overhead = [report.overhead_seconds for report in growing.callback.reports]
    print(f"keras {keras.__version__}, {_TASKS.value} tasks of 2 classes")
    print(
        f"traces: {growing.model.train_function_traces} of the train function, "
        f"{growing.model.test_function_traces} of the test function"
    )
    early = statistics.median(overhead[2:7])
    late = statistics.median(overhead[-5:])
    print(
        f"overhead of a step: median {early:.3f} s of tasks 2 to 6, "
        f"{late:.3f} s of the last five, ratio {late / early:.2f}"
    )
    settled = peaks[min(_SETTLED, len(peaks) - 1)]
    print(
        f"peak memory: {settled:.0f} MB after task {_SETTLED}, {peaks[-1]:.0f} "
        f"MB at the end, ratio {peaks[-1] / settled:.3f}"
    )
    ours = statistics.median(seconds[2:])
    theirs = statistics.median(rebuilt_seconds[2:])
    print(
        f"a whole task: median {ours:.2f} s, {theirs:.2f} s with a head "
        f"rebuilt and compiled for each, ratio {ours / theirs:.3f}"
    )


if __name__ == "__main__":
    app.run(main)
