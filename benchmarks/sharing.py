"""Sharing: what an epoch of a branch costs, against the whole network.

    python benchmarks/sharing.py

Trains a new task of random images at several branch points, the trunk's
outputs cached, one epoch at a time in turns, and prints the seconds of an epoch
as a ratio to the whole network's, beside the share of multiply-accumulates
that the branch has.
"""

import os
import statistics
import time

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import keras_incremental as ki
from keras_incremental.networks import BranchedNetwork
from keras_incremental.objectives import CrossEntropy
from keras_incremental.samples import (
    ArraySamples,
    cache_column,
    training_batches,
)

_IMAGES = flags.DEFINE_integer("images", 960, "Of the new task, 32x32x3.")
_BATCH = flags.DEFINE_integer("batch_size", 64, "")
_EPOCHS = flags.DEFINE_integer("epochs", 7, "Timed, for each point.")
_POINTS = flags.DEFINE_list(
    "points", ["0", "0.25", "0.5", "0.75", "1"], "Fractions of the layers."
)
_MARGIN = 0.10


def epoch_of(base, point: float, samples):
    """Returns a function that trains one epoch of a new branch at `point`."""
    model = base.with_branch_at(point)
    model.network = BranchedNetwork.on(model.network).with_branch()
    model.add_classes([2, 3])
    network = model.network
    cached = cache_column("frozen", network.frozen, samples, memory_bytes=2**31)
    batches, steps = training_batches(
        [cached],
        lambda labels: (
            model.classes.to_units(labels) - network.trained_units.start
        ),
        batch_size=_BATCH.value,
    )
    model.use_objective(CrossEntropy())
    model.restart_optimizer()

    def epoch():
        # The rows are freed with the cached column.
        model.fit_units(
            batches,
            steps_per_epoch=steps,
            epochs=1,
            shuffle=False,  # the batches are shuffled already
            verbose=0,
        )
        return cached

    return epoch


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    keras.utils.set_random_seed(0)
    backbone = ki.backbones.resnet32()
    base = ki.IncrementalClassifier(backbone)
    base.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9))
    base.add_classes([0, 1])
    images = np.random.default_rng(0).integers(
        0, 256, (_IMAGES.value, 32, 32, 3), "uint8"
    )
    samples = ArraySamples(images, np.arange(_IMAGES.value) % 2 + 2)
    points = [float(text) for text in _POINTS.value]
    epochs = [epoch_of(base, point, samples) for point in points]
    for epoch in epochs:
        epoch()
    seconds = [[] for _ in points]
    for _ in range(_EPOCHS.value):
        for timed, epoch in zip(seconds, epochs, strict=True):
            started = time.perf_counter()
            epoch()
            timed.append(time.perf_counter() - started)
    report(backbone, base, points, [statistics.median(t) for t in seconds])


def report(backbone, base, points, seconds):
    """Prints one line for each point."""
    shares = {
        point.name: point.macs for point in ki.sharing.cut_points(backbone)
    }
    print(
        f"keras {keras.__version__}, tensorflow {tf.__version__}, "
        f"{os.cpu_count()} cores; resnet32, {_IMAGES.value} images, batches "
        f"of {_BATCH.value}, median of {_EPOCHS.value} epochs in turns"
    )
    for point, duration in zip(points, seconds, strict=True):
        name = base.with_branch_at(point).branch_at
        shared = shares.get(name, 1.0 if point == 1 else 0.0)
        ratio, bound = duration / seconds[0], 1 - shared + _MARGIN
        verdict = "within" if ratio <= bound else "ABOVE"
        print(
            f"branch at {name}: {duration:.2f} s an epoch, ratio {ratio:.3f}, "
            f"its share of the MACs {1 - shared:.3f} "
            f"({verdict} share + {_MARGIN:g})"
        )


if __name__ == "__main__":
    app.run(main)
