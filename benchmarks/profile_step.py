"""Profiles: where the time of a train step goes, before and after.

    python benchmarks/profile_step.py --output_dir=out/profile
    tensorboard --logdir=out/profile        # with: pip install xprof

Writes a TensorBoard trace of a few train steps of a ResNet-32 for each kind:
Keras' own batch normalisation, the fused one, and EEIL with the teacher in the
loop. Prints which operations the steps spent their time in. Operations run side
by side on several cores, so their times add up to more than the clock's; with
`--threads=1` they run one after another. Prints the rate of all convolutions as
well, beside that of a product of large matrices: what of it a step can reach.
"""

import collections
import os
import pathlib
import re
import statistics
import time

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
import train_step
from absl import app, flags

import keras_incremental as ki

_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "", required=True)
_PROFILED = flags.DEFINE_integer("profiled_steps", 5, "Of each kind.")
_THREADS = flags.DEFINE_integer("threads", 0, "TensorFlow's choice if 0.")
_OPERATION = re.compile(r"[^\s:]+:(_?[A-Z]\w+)")  # node:operation
_SHOWN = flags.DEFINE_integer("operations", 9, "Of each kind, the costliest.")


def profile(step, folder: pathlib.Path) -> None:
    """Writes a trace of some steps."""
    step(), step()
    with tf.profiler.experimental.Profile(str(folder)):
        for number in range(_PROFILED.value):
            with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
                step()


def milliseconds_by_operation(folder: pathlib.Path) -> collections.Counter:
    """Returns the time of a step by kind of operation, all cores added."""
    # The format of a trace has no public module; TensorBoard's own copy is in
    # a package that we do not need otherwise.
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    kinds = collections.Counter()
    for path in folder.rglob("*.xplane.pb"):
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
        for plane in space.planes:
            for line in plane.lines:
                for event in line.events:
                    name = plane.event_metadata[event.metadata_id].name
                    if found := _OPERATION.fullmatch(name):
                        kinds[found[1]] += event.duration_ps / 1e9
    for kind in kinds:
        kinds[kind] /= _PROFILED.value
    return kinds


def macs_of(model) -> dict[str, float]:
    """Returns the multiply-accumulates of each kind of step."""
    cost = ki.cost.report(model, measure=False).rows[0]
    images = train_step.batch_size()
    plain = images * cost.training_macs
    teacher = images * cost.inference_macs
    return {"before": plain, "after": plain, "eeil": plain + teacher}


def matrix_product_rate(size=2048, runs=9) -> float:
    """Returns the 10^9 operations a second of a product of square matrices."""
    product = tf.function(lambda a: tf.matmul(a, a))
    matrix, seconds = tf.random.normal((size, size)), []
    for _ in range(runs):
        started = time.perf_counter()
        product(matrix).numpy()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(seconds[1:]) / 1e9


def print_profile(name, kinds, macs) -> None:
    """Prints the costliest operations, and the rate of the convolutions."""
    total = sum(kinds.values())
    convolutions = sum(d for kind, d in kinds.items() if "Conv2D" in kind)
    rest = sum(d for _, d in kinds.most_common()[_SHOWN.value :])
    rows = [(d, kind) for kind, d in kinds.most_common(_SHOWN.value)]
    print(f"{name}: {total:.0f} ms")
    for duration, kind in [*rows, (rest, "all others")]:
        print(f"  {duration / total:6.1%} {duration:7.1f} ms  {kind}")
    print(
        f"  convolutions: {convolutions / total:.1%} at "
        f"{2 * macs / convolutions / 1e6:.0f} GFLOP/s"
    )


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    for kind in ("intra", "inter"):
        threading = tf.config.threading
        getattr(threading, f"set_{kind}_op_parallelism_threads")(_THREADS.value)
    keras.utils.set_random_seed(0)
    data = train_step.random_batches()
    distilling = train_step.eeil()
    steps = {
        "before": train_step.step_of(
            train_step.plain(train_step.unfused(train_step.backbone())), data
        ),
        "after": train_step.step_of(
            train_step.plain(train_step.backbone()), data
        ),
        "eeil": train_step.step_of(distilling, data),
    }
    macs = macs_of(distilling)
    print(
        f"keras {keras.__version__}, tensorflow {tf.__version__}, "
        f"{os.cpu_count()} cores; ms of a step, all cores added; a product of "
        f"matrices: {matrix_product_rate():.0f} GFLOP/s"
    )
    for name, step in steps.items():
        folder = pathlib.Path(_OUTPUT_DIR.value, name)
        profile(step, folder)
        print_profile(name, milliseconds_by_operation(folder), macs[name])


if __name__ == "__main__":
    app.run(main)
