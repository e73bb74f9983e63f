"""EEIL as a plain PyTorch loop: the other side of `against_pytorch.py`.

    python benchmarks/pytorch_loop.py --blocks=5 --batch_size=128 \\
        --images=2048 --workers=2

Reads `step` or `epoch`, a line each, and answers with the seconds it took. A
process of its own, as TensorFlow and PyTorch do not always go together in one.
"""

import argparse
import sys
import time

import numpy as np
import torch
from torch import nn

OLD, CLASSES, TEMPERATURE, PADDING = 5, 10, 2.0, 4
RATE, MOMENTUM, DECAY = 0.01, 0.9, 1e-4


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
        image = nn.functional.pad(self.images[index], (PADDING,) * 4)
        top, left = torch.randint(0, 2 * PADDING + 1, (2,)).tolist()
        image = image[:, top : top + 32, left : left + 32]
        if torch.rand(()) < 0.5:
            image = image.flip(-1)
        return image, self.units[index]


class PyTorch:
    """The same step as a plain PyTorch loop."""

    def __init__(self, options):
        images, units = random_images(options.images)
        torch.manual_seed(0)
        layout = torch.channels_last
        self.network = ResNet(options.blocks, CLASSES).to(memory_format=layout)
        self.teacher = ResNet(options.blocks, CLASSES).to(memory_format=layout)
        self.teacher.load_state_dict(self.network.state_dict())
        self.teacher.eval()
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            RATE,
            momentum=MOMENTUM,
            weight_decay=DECAY,
        )
        data = CropFlipImages(images, units)
        self._loader = torch.utils.data.DataLoader(
            data,
            options.batch_size,
            shuffle=True,
            num_workers=options.workers,
            persistent_workers=options.workers > 0,
        )
        self._batch = (
            data.images[: options.batch_size],
            data.units[: options.batch_size],
        )

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
            targets = self.teacher(images)[:, :OLD] / TEMPERATURE
        logits = self.network(images)
        student = (logits[:, :OLD] / TEMPERATURE).log_softmax(1)
        distillation = -(targets.softmax(1) * student).sum(1).mean()
        loss = nn.functional.cross_entropy(logits, units) + distillation
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def random_images(count):
    """Returns random images `(count, 32, 32, 3)` uint8, and their units."""
    images = np.random.default_rng(0).integers(
        0, 256, (count, 32, 32, 3), "uint8"
    )
    return images, (np.arange(count) % CLASSES).astype("int32")


def main():
    """Answers one line after another, until there are no more."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("blocks", "batch_size", "images", "workers"):
        parser.add_argument(f"--{name}", type=int, required=True)
    side = PyTorch(parser.parse_args())
    print(torch.__version__, flush=True)
    runs = {"step": side.step, "epoch": side.epoch}
    for line in sys.stdin:
        started = time.perf_counter()
        runs[line.strip()]()
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
