"""Profiles: where the time of a train step goes, before and after.

    python benchmarks/profile_step.py --output_dir=out/profile
    tensorboard --logdir=out/profile        # with: pip install xprof

Writes a TensorBoard trace of a few train steps of a ResNet-32 for each kind:
Keras' own batch normalisation, the fused one, and EEIL with the teacher in the
loop. Prints which operations the steps spent their time in. Operations run side
by side on several cores, so their times add up to more than the clock's.
"""

import collections
import os
import pathlib
import re

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
import train_step
from absl import app, flags

_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "", required=True)
_PROFILED = flags.DEFINE_integer("profiled_steps", 5, "Of each kind.")
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


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    keras.utils.set_random_seed(0)
    data = train_step.random_batches()
    steps = {
        "before": train_step.step_of(
            train_step.plain(train_step.unfused(train_step.backbone())), data
        ),
        "after": train_step.step_of(
            train_step.plain(train_step.backbone()), data
        ),
        "eeil": train_step.step_of(train_step.eeil(), data),
    }
    print(
        f"keras {keras.__version__}, tensorflow {tf.__version__}, "
        f"{os.cpu_count()} cores; ms of a step, all cores added"
    )
    for name, step in steps.items():
        folder = pathlib.Path(_OUTPUT_DIR.value, name)
        profile(step, folder)
        kinds = milliseconds_by_operation(folder)
        total = sum(kinds.values())
        print(f"{name}: {total:.0f} ms")
        for kind, duration in kinds.most_common(_SHOWN.value):
            print(f"  {duration / total:6.1%} {duration:7.1f} ms  {kind}")
        rest = np.sum([d for _, d in kinds.most_common()[_SHOWN.value :]])
        print(f"  {rest / total:6.1%} {rest:7.1f} ms  all others")


if __name__ == "__main__":
    app.run(main)
