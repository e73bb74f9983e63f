"""EEIL here against EEIL in plain PyTorch: images per second.

    pip install torch
    python benchmarks/against_pytorch.py

Both train a ResNet-32 on the same images with the same batch, optimizer,
augmentation (random crop and flip) and losses: cross-entropy over all classes
and distillation of the old ones from a teacher. Measured in turns in one
process: the bare step on one batch, and whole epochs with the data pipeline
(`fit` here, a `DataLoader` with worker processes there). PyTorch runs channels
last, its faster layout on a CPU. Without PyTorch, ours are measured alone.
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
from keras_incremental.exemplars import training_batches
from keras_incremental.samples import ArraySamples

try:
    import torch
    from torch import nn
except ImportError:
    torch = None

_BATCH = flags.DEFINE_integer("batch_size", 128, "Images of 32x32x3.")
_IMAGES = flags.DEFINE_integer("images", 2048, "Of an epoch.")
_STEPS = flags.DEFINE_integer("steps", 15, "Bare steps timed, of each.")
_EPOCHS = flags.DEFINE_integer("epochs", 5, "Timed, of each.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Of PyTorch's DataLoader.")
_BLOCKS = flags.DEFINE_integer("blocks", 5, "A stage; 5 for ResNet-32.")
_OLD, _CLASSES, _TEMPERATURE, _PADDING = 5, 10, 2.0, 4
_RATE, _MOMENTUM, _DECAY = 0.01, 0.9, 1e-4


class Ours:
    """EEIL of this package, in the second task."""

    def __init__(self, images, units):
        name = f"resnet{6 * _BLOCKS.value + 2}"
        self.model = ki.IncrementalClassifier(
            getattr(ki.backbones, name)((32, 32, 3))
        )
        self.model.compile(
            keras.optimizers.SGD(_RATE, momentum=_MOMENTUM, weight_decay=_DECAY)
        )
        self.model.use_teacher(True)
        self.model.add_classes(range(_OLD))
        self.model.update_teacher()
        self.model.add_classes(range(_OLD, _CLASSES))
        self.model.training_settings.distilled_units.assign(_OLD)
        self._epoch_data, self._steps = training_batches(
            [ArraySamples(images, units.astype("int64"))],
            self.model.to_training_units,
            batch_size=_BATCH.value,
            augment=ki.augmentation.CropFlip(padding=_PADDING),
        )
        batch = images[: _BATCH.value], units[: _BATCH.value]
        self._one_batch = iter(tf.data.Dataset.from_tensors(batch).repeat())

    def step(self):
        """One bare step on a batch at hand."""
        function = self.model.train_function
        tf.nest.map_structure(np.asarray, function(self._one_batch))

    def epoch(self):
        """One epoch of `fit`, data pipeline included."""
        self.model.fit_units(
            self._epoch_data, steps_per_epoch=self._steps, epochs=1, verbose=0
        )


if torch is not None:

    class Block(nn.Module):
        """Two convolutions and a shortcut without weights (option A)."""

        def __init__(self, channels, filters, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(
                channels, filters, 3, stride, padding=1, bias=False
            )
            self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
            self.norm1 = nn.BatchNorm2d(filters)
            self.norm2 = nn.BatchNorm2d(filters)
            self.stride, self.new = stride, filters - channels

        def forward(self, x):
            y = torch.relu(self.norm1(self.conv1(x)))
            y = self.norm2(self.conv2(y))
            if self.new:
                x = x[:, :, :: self.stride, :: self.stride]
                sides = self.new // 2, self.new - self.new // 2
                x = nn.functional.pad(x, (0, 0, 0, 0, *sides))
            return torch.relu(x + y)

    class ResNet(nn.Module):
        """He et al. 2016, section 4.2, with a linear classifier."""

        def __init__(self, blocks, classes):
            super().__init__()
            layers = [
                nn.Conv2d(3, 16, 3, padding=1, bias=False),
                nn.BatchNorm2d(16),
                nn.ReLU(),
            ]
            channels = 16
            for filters in (16, 32, 64):
                for _ in range(blocks):
                    stride = 2 if filters > channels else 1
                    layers.append(Block(channels, filters, stride))
                    channels = filters
            self.features = nn.Sequential(*layers)
            self.head = nn.Linear(64, classes)

        def forward(self, x):
            x = self.features(x.float() / 127.5 - 1)
            return self.head(x.mean((2, 3)))

    class CropFlipImages(torch.utils.data.Dataset):
        """Images, cropped and flipped at random as they are read."""

        def __init__(self, images, units):
            self.images = torch.from_numpy(images).permute(0, 3, 1, 2)
            self.units = torch.from_numpy(units.astype("int64"))

        def __len__(self):
            return len(self.images)

        def __getitem__(self, index):
            image = nn.functional.pad(self.images[index], (_PADDING,) * 4)
            top, left = torch.randint(0, 2 * _PADDING + 1, (2,)).tolist()
            image = image[:, top : top + 32, left : left + 32]
            if torch.rand(()) < 0.5:
                image = image.flip(-1)
            return image, self.units[index]


class PyTorch:
    """The same step as a plain PyTorch loop."""

    def __init__(self, images, units):
        torch.manual_seed(0)
        layout = torch.channels_last
        self.network = ResNet(_BLOCKS.value, _CLASSES).to(memory_format=layout)
        self.teacher = ResNet(_BLOCKS.value, _CLASSES).to(memory_format=layout)
        self.teacher.load_state_dict(self.network.state_dict())
        self.teacher.eval()
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            _RATE,
            momentum=_MOMENTUM,
            weight_decay=_DECAY,
        )
        data = CropFlipImages(images, units)
        self._loader = torch.utils.data.DataLoader(
            data,
            _BATCH.value,
            shuffle=True,
            num_workers=_WORKERS.value,
            persistent_workers=_WORKERS.value > 0,
        )
        self._batch = data.images[: _BATCH.value], data.units[: _BATCH.value]

    def step(self):
        """One bare step on a batch at hand."""
        return self._train(*self._batch)

    def epoch(self):
        """One epoch with the data pipeline."""
        for images, units in self._loader:
            self._train(images, units)

    def _train(self, images, units):
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            targets = self.teacher(images)[:, :_OLD] / _TEMPERATURE
        logits = self.network(images)
        student = (logits[:, :_OLD] / _TEMPERATURE).log_softmax(1)
        distillation = -(targets.softmax(1) * student).sum(1).mean()
        loss = nn.functional.cross_entropy(logits, units) + distillation
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def images_per_second(runs, images, repeats):
    """Returns the median rate of each function, run in turns."""
    seconds = [[] for _ in runs]
    for _ in range(repeats):
        for timed, run in zip(seconds, runs, strict=True):
            started = time.perf_counter()
            run()
            timed.append(time.perf_counter() - started)
    return [images / statistics.median(timed) for timed in seconds]


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (_IMAGES.value, 32, 32, 3), "uint8")
    units = (np.arange(_IMAGES.value) % _CLASSES).astype("int32")
    sides = [Ours(images, units)]
    if torch is not None:
        sides.append(PyTorch(images, units))
    for side in sides:
        side.epoch(), side.step()
    steps = images_per_second(
        [side.step for side in sides], _BATCH.value, _STEPS.value
    )
    epochs = images_per_second(
        [side.epoch for side in sides], _IMAGES.value, _EPOCHS.value
    )
    version = "not installed" if torch is None else torch.__version__
    print(
        f"keras {keras.__version__}, tensorflow {tf.__version__}, torch "
        f"{version}, {os.cpu_count()} cores; resnet{6 * _BLOCKS.value + 2}, "
        f"batch {_BATCH.value}"
    )
    for name, rates in (("bare step", steps), ("epoch", epochs)):
        line = f"{name}: ours {rates[0]:.0f} images a second"
        if torch is not None:
            line += f", PyTorch {rates[1]:.0f}, ratio {rates[0] / rates[1]:.2f}"
        print(line)
    print(f"our fit against its bare step: ratio {epochs[0] / steps[0]:.3f}")


if __name__ == "__main__":
    app.run(main)
