"""Memory: what a storage of exemplars costs in RAM, and in training speed.

    python benchmarks/memory.py
    python benchmarks/memory.py --exemplars=2000 --storages=raw,jpeg

Each storage has a process of its own, which fills a memory from a file of
images and then trains from it. The processes take turns; the ratios are those
of one turn, against the first storage, and their median is printed, of the time
by the clock and of processor time, which other processes disturb less.
"""

import json
import os
import platform
import subprocess
import sys
import time

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import keras_incremental as ki
from keras_incremental.exemplars import random_order
from keras_incremental.samples import (
    MappedSamples,
    read_samples,
    training_batches,
)

STORAGES = {
    "raw": ki.exemplars.RawStorage,
    "jpeg": ki.exemplars.JpegStorage,
    "disk": ki.exemplars.DiskStorage,
}
NETWORKS = {
    "resnet18": ki.backbones.resnet18,
    "small": ki.backbones.small,
}
_CLASSES = 10
_DISTINCT = 64

_EXEMPLARS = flags.DEFINE_integer("exemplars", 20000, "In all.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Height and width.")
_STORAGES = flags.DEFINE_list(
    "storages", ["raw", "jpeg", "disk"], f"Of {', '.join(STORAGES)}."
)
_NETWORKS = flags.DEFINE_list(
    "networks", ["resnet18", "small"], f"Of {', '.join(NETWORKS)}."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Of pipeline and step.")
_STEPS = flags.DEFINE_integer("steps", 12, "Train steps of a turn.")
_BATCHES = flags.DEFINE_integer("batches", 50, "Of the bare pipeline, a turn.")
_TURNS = flags.DEFINE_integer("turns", 5, "Of each storage.")
_CHILD = flags.DEFINE_string("child", None, "The storage of this process.")


def images_in_a_file() -> MappedSamples:
    """Returns shifts of smooth random images with some noise."""
    size, count = _IMAGE_SIZE.value, _EXEMPLARS.value
    coarse = [_DISTINCT, max(size // 8, 1), max(size // 8, 1), 3]
    images = tf.image.resize(
        tf.random.stateless_uniform(coarse, [0, 0], 0, 255),
        [size, size],
        "bicubic",
    )
    images += tf.random.stateless_normal(images.shape, [0, 0], stddev=6)
    images = tf.cast(tf.clip_by_value(images, 0, 255), tf.uint8)

    def image_of(index):
        shift = tf.cast(index // _DISTINCT, tf.int32)
        return tf.roll(
            images[index % _DISTINCT], [shift // size, shift], [0, 1]
        )

    labels = np.arange(count) % _CLASSES
    images = tf.data.Dataset.range(count).map(
        image_of, num_parallel_calls=tf.data.AUTOTUNE
    )
    pairs = tf.data.Dataset.zip(
        images, tf.data.Dataset.from_tensor_slices(labels)
    )
    return read_samples(
        pairs.batch(_BATCH_SIZE.value),
        image_shape=(size, size, 3),
        cache_bytes=0,
    )


def peak_mb() -> float:
    """Returns the most RAM this process has taken, in MB (10**6 bytes)."""
    with open("/proc/self/status", encoding="ascii") as file:
        peak = next(line for line in file if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 / 1e6


def make_model(network: str) -> keras.Model:
    """Returns a compiled classifier that takes raw images."""
    shape = (_IMAGE_SIZE.value, _IMAGE_SIZE.value, 3)
    backbone = NETWORKS[network](input_shape=shape)
    logits = keras.layers.Dense(_CLASSES)(backbone.output)
    model = keras.Model(backbone.input, logits)
    model.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


class Clock(keras.callbacks.Callback):
    """Notes when each train step of a fit has ended."""

    def on_train_begin(self, logs=None):
        self.times = []

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(now())


def now() -> np.ndarray:
    """Returns the seconds of the clock, and of processor time so far."""
    return np.array([time.perf_counter(), time.process_time()])


def step_seconds(model: keras.Model, batches) -> np.ndarray:
    """Returns the mean seconds of a turn's train steps, after the first."""
    clock = Clock()
    model.fit(
        batches,
        steps_per_epoch=1 + _STEPS.value,
        shuffle=False,  # the batches are shuffled already
        verbose=0,
        callbacks=[clock],
    )
    return (clock.times[-1] - clock.times[0]) / _STEPS.value


def be_child() -> None:
    """Fills a memory, then measures a turn for each line on stdin."""
    size, batch_size = _IMAGE_SIZE.value, _BATCH_SIZE.value
    models = {network: make_model(network) for network in _NETWORKS.value}
    noise = np.zeros((batch_size, size, size, 3), "uint8")
    some = tf.data.Dataset.from_tensors((noise, np.zeros(batch_size, "int32")))
    for model in models.values():
        step_seconds(model, some.repeat())
    report = {"before": peak_mb()}
    memory = ki.ExemplarMemory(
        _EXEMPLARS.value,
        storage=STORAGES[_CHILD.value](),
        selection=random_order,
    )
    start = time.perf_counter()
    features = np.zeros((_EXEMPLARS.value, 1), "float32")
    memory.update(images_in_a_file(), None, features=features)
    report["fill_seconds"] = time.perf_counter() - start
    report["stored"], report["filled"] = memory.nbytes / 1e6, peak_mb()
    batches, _ = training_batches(
        [memory.samples()],
        lambda labels: labels.astype("int32"),
        batch_size=batch_size,
    )
    batches = batches.map(lambda columns, units: (columns["images"], units))
    for model in models.values():
        step_seconds(model, batches)
    print(json.dumps(report), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure(batches, models)), flush=True)


def measure(batches, models) -> dict:
    """Returns one turn's seconds an image, and the peak of RAM so far."""
    iterator = iter(batches)
    next(iterator)
    start = now()
    count = sum(len(next(iterator)[1]) for _ in range(_BATCHES.value))
    seconds = {"bare pipeline": ((now() - start) / count).tolist()}
    del iterator
    for network, model in models.items():
        of_image = step_seconds(model, batches) / _BATCH_SIZE.value
        seconds[f"fit of {network}"] = of_image.tolist()
    return {**seconds, "peak": peak_mb()}


def start_child(storage: str) -> subprocess.Popen:
    """Starts the process of a storage."""
    return subprocess.Popen(
        [sys.executable, *sys.argv, f"--child={storage}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def answer_of(child: subprocess.Popen) -> dict:
    """Returns the next line of a process."""
    line = child.stdout.readline()
    if not line:
        sys.exit("memory.py: the process of a storage ended; see above.")
    return json.loads(line)


def take_turns() -> None:
    """Starts the processes, lets them take turns, prints the table."""
    children, reports = {}, {}
    for storage in _STORAGES.value:
        children[storage] = start_child(storage)
        reports[storage] = answer_of(children[storage])
    turns = []
    for _ in range(_TURNS.value):
        turns.append({})
        for storage, child in children.items():
            child.stdin.write("go\n")
            child.stdin.flush()
            turns[-1][storage] = answer_of(child)
    for child in children.values():
        child.stdin.close()
        child.wait()
    print_table(reports, turns)


def print_table(reports: dict, turns: list[dict]) -> None:
    """Prints RAM, rates and ratios of each storage."""
    first = _STORAGES.value[0]
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} "
        f"cores, tensorflow {tf.__version__}: {_EXEMPLARS.value} exemplars of "
        f"{_IMAGE_SIZE.value} pixels, batches of {_BATCH_SIZE.value}, "
        f"medians of {len(turns)} turns"
    )
    for storage, report in reports.items():
        peak = turns[-1][storage].pop("peak")
        print(
            f"{storage}: {report['stored']:.0f} MB stored in "
            f"{report['fill_seconds']:.0f} s; peak RSS {report['before']:.0f} "
            f"MB before, {report['filled']:.0f} MB filled, {peak:.0f} MB "
            "after training"
        )
    for storage in reports:
        for what in turns[-1][storage]:
            seconds = np.array([turn[storage][what] for turn in turns])
            firsts = np.array([turn[first][what] for turn in turns])
            ratio, processor = np.median(seconds / firsts, axis=0)
            print(
                f"{storage}, {what}: {1 / np.median(seconds[:, 0]):.0f} "
                f"images/s, {1e3 * np.median(seconds[:, 1]):.2f} ms of "
                f"processor an image; time over {first} ratio {ratio:.2f}, "
                f"processor time {processor:.2f}"
            )


def main(argv):
    """Runs the benchmark; absl calls it."""
    del argv
    if _CHILD.value is None:
        take_turns()
    else:
        be_child()


if __name__ == "__main__":
    app.run(main)
