"""Herding: the vectorised ranking against the loops it replaces.

    python benchmarks/herding.py
    python benchmarks/herding.py --samples=1000,2000,4000 --features=512

Prints medians of processor seconds, the ratio to a loop over samples, run in
turn, and how the time grows with the samples and with the chosen: the exponent
p of seconds ~ count**p, 1 where growth is linear.
"""

import os
import platform
import statistics
import time

# One core, so that what grows is the work and not the number of threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from absl import app, flags

from keras_incremental.exemplars import herding_order

_FEATURES = flags.DEFINE_integer("features", 64, "Of each sample.")
_LOOP_SAMPLES = flags.DEFINE_integer("loop_samples", 500, "Of the loop.")
_LOOP_CHOSEN = flags.DEFINE_integer("loop_chosen", 200, "By the loop.")
_SAMPLES = flags.DEFINE_list(
    "samples", ["1000", "2000", "4000", "8000", "16000"], "Of one class."
)
_CHOSEN = flags.DEFINE_list(
    "chosen", ["100", "200", "400", "800"], "Exemplars to rank."
)
_RUNS = flags.DEFINE_integer("runs", 7, "Of each size.")


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


def herding_by_nested_loops(features, count):
    """The same with the sum made anew for each choice, as in FACIL."""
    features = [f / np.linalg.norm(f) for f in features]
    mean = np.mean(features, axis=0)
    chosen = []
    for k in range(1, count + 1):
        total = np.zeros_like(mean)
        for j in chosen:
            total += features[j] / k
        best, nearest = -1, np.inf
        for i in range(len(features)):
            if i not in chosen:
                distance = np.linalg.norm(mean - features[i] / k - total)
                if distance < nearest:
                    best, nearest = i, distance
        chosen.append(best)
    return chosen


def seconds_of(function, *arguments):
    """Returns the seconds of processor time of one call, on one thread."""
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def draw(samples):
    """Returns features of one class."""
    shape = (samples, _FEATURES.value)
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def print_ratio(loops, name):
    """Times loops and ranking in turn."""
    features, chosen = draw(_LOOP_SAMPLES.value), _LOOP_CHOSEN.value
    pairs = [
        (
            seconds_of(loops, features, chosen),
            seconds_of(herding_order, features, chosen),
        )
        for _ in range(_RUNS.value)
    ]
    ratio = statistics.median(loop / ours for loop, ours in pairs)
    loop, ours = (
        statistics.median(column) for column in zip(*pairs, strict=True)
    )
    print(
        f"{len(features)} samples of {_FEATURES.value} features, {chosen} "
        f"chosen: {name} {loop:.3f} s, vectorised {ours:.5f} s, ratio "
        f"{ratio:.0f}"
    )


def print_growth(what, counts, arguments_of):
    """Times the ranking at several counts, all of them in each turn."""
    turns = [
        [seconds_of(herding_order, *arguments_of(count)) for count in counts]
        for _ in range(_RUNS.value)
    ]
    medians = [statistics.median(column) for column in zip(*turns, strict=True)]
    exponent = np.polyfit(np.log(counts), np.log(medians), 1)[0]
    times = ", ".join(
        f"{count} {seconds * 1e3:.1f} ms"
        for count, seconds in zip(counts, medians, strict=True)
    )
    print(f"{what}: {times}; growth exponent {exponent:.2f}")


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    processor = platform.processor() or platform.machine()
    print(f"{processor}, numpy {np.__version__}, medians")
    print_ratio(herding_by_loops, "loops")
    print_ratio(herding_by_nested_loops, "nested loops")
    samples = [int(count) for count in _SAMPLES.value]
    chosen = [int(count) for count in _CHOSEN.value]
    features = {count: draw(count) for count in samples}
    print_growth(
        f"samples, {chosen[0]} chosen",
        samples,
        lambda count: (features[count], chosen[0]),
    )
    most = features[samples[-1]]
    print_growth(
        f"chosen, of {len(most)} samples", chosen, lambda count: (most, count)
    )


if __name__ == "__main__":
    app.run(main)
