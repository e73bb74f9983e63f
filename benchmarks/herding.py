"""Herding: the vectorised ranking against the loops it replaces.

    python benchmarks/herding.py
    python benchmarks/herding.py --samples=500 --features=64

Prints medians of seconds and the ratio of the two, run in turn.
"""

import platform
import statistics
import time

import numpy as np
from absl import app, flags

from keras_incremental.exemplars import herding_order

_SAMPLES = flags.DEFINE_integer("samples", 5000, "Of one class.")
_FEATURES = flags.DEFINE_integer("features", 512, "Of each sample.")
_CHOSEN = flags.DEFINE_integer("chosen", 200, "Exemplars to rank.")
_RUNS = flags.DEFINE_integer("runs", 5, "Of the vectorised ranking.")
_LOOP_SAMPLES = flags.DEFINE_integer(
    "loop_samples", 500, "Of the loop, which is too slow for more."
)


def herding_by_loops(features, count):
    """iCaRL Alg. 4 with a Python loop over samples, as peers write it."""
    features = [f / np.linalg.norm(f) for f in features]
    mean = np.mean(features, axis=0)
    chosen, total = [], np.zeros_like(mean)
    for k in range(1, count + 1):
        best, nearest = -1, np.inf
        for i, f in enumerate(features):
            if i not in chosen:
                distance = np.linalg.norm(mean - (total + f) / k)
                if distance < nearest:
                    best, nearest = i, distance
        chosen.append(best)
        total = total + features[best]
    return chosen


def seconds_of(function, *arguments):
    """Returns the seconds of one call."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main(argv):
    """Prints the table; absl calls it."""
    del argv
    random = np.random.default_rng(0)
    shape = (_SAMPLES.value, _FEATURES.value)
    features = random.random(shape, dtype=np.float32)
    chosen = min(_CHOSEN.value, _SAMPLES.value)
    ours = [
        seconds_of(herding_order, features, chosen) for _ in range(_RUNS.value)
    ]
    print(
        f"{platform.processor() or platform.machine()}, numpy", np.__version__
    )
    print(
        f"vectorised, {shape[0]} samples of {shape[1]} features, {chosen} "
        f"chosen: median {statistics.median(ours):.4f} s of {len(ours)}"
    )
    small = features[: _LOOP_SAMPLES.value]
    chosen = min(chosen, len(small))
    pairs = [
        (
            seconds_of(herding_by_loops, small, chosen),
            seconds_of(herding_order, small, chosen),
        )
        for _ in range(3)
    ]
    loop, ours = (
        statistics.median(column) for column in zip(*pairs, strict=True)
    )
    print(
        f"{len(small)} samples: loops {loop:.3f} s, vectorised {ours:.5f} s, "
        f"ratio {loop / ours:.0f}"
    )


if __name__ == "__main__":
    app.run(main)
