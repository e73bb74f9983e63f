"""EEIL here against EEIL in plain PyTorch: images per second.

    pip install -e ".[benchmarks]"
    python benchmarks/against_pytorch.py

Both train a ResNet-32 on the same images with the same batch, optimizer,
augmentation (random crop and flip) and losses: cross-entropy over all classes
and distillation of the old ones from a teacher. Measured in turns, a process
each: the bare step on one batch, and whole epochs with the data pipeline
(`fit` here, a `DataLoader` with worker processes there). PyTorch runs channels
last, its faster layout on a CPU. Without PyTorch, ours are measured alone.
"""

import importlib.util
import os
import pathlib
import statistics
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
from keras_incremental.objectives import CrossDistilled
from keras_incremental.samples import ArraySamples, training_batches

_BATCH = flags.DEFINE_integer("batch_size", 128, "Images of 32x32x3.")
_IMAGES = flags.DEFINE_integer("images", 5120, "Of an epoch.")
_STEPS = flags.DEFINE_integer("steps", 15, "Bare steps timed, of each.")
_EPOCHS = flags.DEFINE_integer("epochs", 3, "Timed, of each.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Of PyTorch's DataLoader.")
_BLOCKS = flags.DEFINE_integer("blocks", 5, "A stage; 5 for ResNet-32.")
_OLD, _CLASSES, _TEMPERATURE, _PADDING = 5, 10, 2.0, 4
_RATE, _MOMENTUM, _DECAY = 0.01, 0.9, 1e-4


class Ours:
    """EEIL of this package, in the second task."""

    def __init__(self, images, units):
        name = f"resnet{6 * _BLOCKS.value + 2}"
        self.model = ki.IncrementalClassifier(
            getattr(ki.backbones, name)(
                (32, 32, 3),
                kernel_regularizer=keras.regularizers.L2(_DECAY / 2),
            )
        )
        self.model.compile(keras.optimizers.SGD(_RATE, momentum=_MOMENTUM))
        self.model.add_classes(range(_OLD))
        self.model.add_classes(range(_OLD, _CLASSES))
        self.model.use_objective(CrossDistilled(_OLD, _TEMPERATURE))
        self._epoch_data, self._steps = training_batches(
            [ArraySamples(images, units.astype("int64"))],
            self.model.classes.to_units,
            batch_size=_BATCH.value,
            augment=ki.augmentation.CropFlip(padding=_PADDING),
        )
        batch = images[: _BATCH.value], units[: _BATCH.value]
        self._one_batch = iter(tf.data.Dataset.from_tensors(batch).repeat())

    def step(self):
        """Returns the seconds of one bare step on a batch at hand."""
        started = time.perf_counter()
        function = self.model.train_function
        tf.nest.map_structure(np.asarray, function(self._one_batch))
        return time.perf_counter() - started

    def epoch(self):
        """Returns the seconds of one epoch of `fit`, data pipeline included."""
        started = time.perf_counter()
        self.model.fit_units(
            self._epoch_data,
            steps_per_epoch=self._steps,
            epochs=1,
            shuffle=False,  # the batches are shuffled already
            verbose=0,
        )
        return time.perf_counter() - started


class PyTorch:
    """The same as a plain PyTorch loop, in a process of its own."""

    def __init__(self):
        loop = pathlib.Path(__file__).with_name("pytorch_loop.py")
        sizes = {
            "blocks": _BLOCKS.value,
            "batch_size": _BATCH.value,
            "images": _IMAGES.value,
            "workers": _WORKERS.value,
        }
        self._process = subprocess.Popen(
            [sys.executable, loop, *(f"--{k}={v}" for k, v in sizes.items())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.version = self._process.stdout.readline().strip()

    def step(self):
        """Returns the seconds of one bare step."""
        return self._ask("step")

    def epoch(self):
        """Returns the seconds of one epoch with the data pipeline."""
        return self._ask("epoch")

    def close(self):
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, what):
        print(what, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


def images_per_second(runs, images, repeats):
    """Returns the median rate of each function, run in turns."""
    seconds = [[run() for run in runs] for _ in range(repeats)]
    return [images / statistics.median(s) for s in zip(*seconds, strict=True)]


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (_IMAGES.value, 32, 32, 3), "uint8")
    units = (np.arange(_IMAGES.value) % _CLASSES).astype("int32")
    sides = [Ours(images, units)]
    version = "not installed"
    if importlib.util.find_spec("torch"):
        sides.append(PyTorch())
        version = sides[1].version
    for side in sides:
        side.epoch(), side.step()
    steps = images_per_second(
        [side.step for side in sides], _BATCH.value, _STEPS.value
    )
    epochs = images_per_second(
        [side.epoch for side in sides], _IMAGES.value, _EPOCHS.value
    )
    print(
        f"keras {keras.__version__}, tensorflow {tf.__version__}, torch "
        f"{version}, {os.cpu_count()} cores; resnet{6 * _BLOCKS.value + 2}, "
        f"batch {_BATCH.value}"
    )
    for name, rates in (("bare step", steps), ("epoch", epochs)):
        line = f"{name}: ours {rates[0]:.0f} images a second"
        if len(rates) > 1:
            line += f", PyTorch {rates[1]:.0f}, ratio {rates[0] / rates[1]:.2f}"
        print(line)
    print(f"our fit against its bare step: ratio {epochs[0] / steps[0]:.3f}")
    for side in sides[1:]:
        side.close()


if __name__ == "__main__":
    app.run(main)
