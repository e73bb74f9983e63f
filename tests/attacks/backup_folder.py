"""Damaged backups: the newest that is whole, or an error; nothing else."""

import functools

import numpy as np
from damage import count_reads, damaged

from keras_incremental.backups import BackupFolder

SHORT = 4
LONG = 20
_COPIES = 5  # a round
_EPOCHS = (1, 2, 3)


def commit(folder, epoch):
    """Backs up arrays that tell the epoch."""
    weights = np.full((50, 3), epoch, "float32")
    blobs = {
        "model": folder.put({"weights": weights}),
        "memory": folder.put({"images": np.zeros((4, 8, 8, 1), "uint8")}),
    }
    folder.commit({"epoch": epoch}, blobs)


def read(folder):
    """Returns the epoch of record and arrays, and the sum of the images."""
    record, blobs = folder.read()
    weights = folder.get(blobs["model"])["weights"]
    images = folder.get(blobs["memory"])["images"]
    return record["epoch"], set(weights.flat), int(images.sum())


def attack(rounds, seed, folder):
    """Damages one file at a time, and puts another's content into its place."""
    backup = BackupFolder(folder / "backup")
    for epoch in _EPOCHS:
        commit(backup, epoch)
    right = [(epoch, {float(epoch)}, 0) for epoch in _EPOCHS[-2:]]
    random = np.random.default_rng(seed)
    files = sorted(path for path in backup.path.iterdir())

    def reads():
        for _ in range(rounds):
            path, other = random.choice(files, 2, replace=False)
            whole = path.read_bytes()
            copies = damaged(whole, _COPIES - 1, random)
            for copy in (*copies, other.read_bytes()):
                path.write_bytes(copy)
                yield functools.partial(read, backup)
            path.write_bytes(whole)

    return count_reads(reads(), right, str(backup.path))
