"""Damages memories, exemplars on disk and backups, and reads them.

A read is *refused* where an error names the file, *unharmed* where what was
kept comes back, *wrong* where anything else does, or the error names no file.
"""

import collections
import pathlib
import shutil

import numpy as np

from keras_incremental import ExemplarMemory
from keras_incremental.backups import BackupFolder
from keras_incremental.exemplars import DiskStorage, JpegStorage, RawStorage
from keras_incremental.samples import ArraySamples

SHORT = 6  # rounds in the default tests
LONG = 20
SHAPE = (12, 10, 3)


def attack(rounds: int, seed: int, folder) -> dict:
    """Returns how many reads were refused, unharmed and wrong, by target.

    Args:
        rounds: For each target.
        seed: Draws the damage.
        folder: An empty one.
    """
    folder = pathlib.Path(folder)
    figures = {}
    for name, storage in {
        "raw": RawStorage(),
        "jpeg": JpegStorage(),
        "disk": DiskStorage(folder / "exemplars"),
    }.items():
        figures[f"memory folder, {name}"] = attack_memory_folder(
            rounds, seed, folder / name, storage
        )
    figures["exemplars on disk"] = attack_exemplars(rounds, seed, folder)
    figures["save after damage on disk"] = attack_saves(rounds, seed, folder)
    figures["backups"] = attack_backups(rounds, seed, folder / "backups")
    return {
        **{target: dict(counts) for target, counts in figures.items()},
        "wrong": sum(counts["wrong"] for counts in figures.values()),
    }


def attack_memory_folder(rounds, seed, folder, storage):
    random = np.random.default_rng(seed)
    memory = memory_of(storage)
    memory.save(folder)
    whole = contents(memory)
    path = folder / "memory.npz"
    content = path.read_bytes()

    def read():
        return contents(ExemplarMemory.load(folder)) == whole

    counts = collections.Counter()
    for _ in range(rounds):
        path.write_bytes(damaged(content, random))
        counts[outcome(read, path)] += 1
    return counts


def attack_exemplars(rounds, seed, folder):
    """Damages a file of a memory that is in use, and puts it right again."""
    random = np.random.default_rng(seed)
    place = folder / "in use"
    memory = memory_of(DiskStorage(place))
    whole = contents(memory)
    counts = collections.Counter()
    for index in range(rounds):
        path, repair = damage_a_file(place, random)
        counts[outcome(READS[index % 2](memory, whole), path)] += 1
        repair()
    return counts


def attack_saves(rounds, seed, folder):
    """Saves a memory with a damaged file, and loads what was saved."""
    random = np.random.default_rng(seed + 1)
    place, saved = folder / "to save", folder / "saved"
    memory = memory_of(DiskStorage(place))
    whole = contents(memory)
    counts = collections.Counter()
    for _ in range(rounds):
        shutil.rmtree(saved, ignore_errors=True)
        path, repair = damage_a_file(place, random)

        def save_and_load():
            memory.save(saved)
            return contents(ExemplarMemory.load(saved)) == whole

        counts[outcome(save_and_load, path)] += 1
        repair()
    return counts


def attack_backups(rounds, seed, folder):
    random = np.random.default_rng(seed)
    written = {}
    backups = BackupFolder(folder)
    for epoch in range(3):
        arrays = {"w": random.normal(size=(20, 7)), "n": np.arange(epoch + 1)}
        blob = backups.put(arrays)
        backups.commit({"epoch": epoch}, {"model": blob})
        written[epoch] = as_bytes(arrays)

    def read():
        record, blobs = BackupFolder(folder).read()
        return as_bytes(backups.get(blobs["model"])) == written[record["epoch"]]

    counts = collections.Counter()
    for _ in range(rounds):
        files = sorted(folder.iterdir())
        contents_ = {file: file.read_bytes() for file in files}
        for file in random.choice(files, random.integers(1, 3), replace=False):
            file.write_bytes(damaged(contents_[file], random))
        counts[outcome(read, folder)] += 1
        for file, content in contents_.items():
            file.write_bytes(content)
    return counts


def outcome(read, path) -> str:
    try:
        is_right = read()
    except Exception as error:
        return "refused" if str(path) in str(error) else "wrong"
    return "unharmed" if is_right else "wrong"


def damaged(content: bytes, random) -> bytes:
    """Returns bytes with a flip, a cut, a hole, an exchange or a repetition."""
    changed = bytearray(content)
    first, second = sorted(random.integers(0, len(content), 2).tolist())
    size = min(int(random.integers(1, 40)), len(content) - second)
    kind = random.integers(5)
    if kind == 0:
        changed[first] ^= 1 << int(random.integers(8))
    elif kind == 1:
        del changed[first:]
    elif kind == 2:
        changed[first : first + size] = bytes(len(changed[first:][:size]))
    elif kind == 3:
        one, other = changed[first:][:size], changed[second:][:size]
        changed[first : first + size] = other
        changed[second : second + size] = one
    else:
        changed[first:first] = changed[second : second + size]
    return bytes(changed)


def damage_a_file(folder, random):
    """Flips, cuts, exchanges or deletes exemplars; returns what repairs it."""
    files = sorted(p for p in folder.rglob("*") if p.name.isdecimal())
    path, other = random.choice(files, 2, replace=False)
    before = {file: file.read_bytes() for file in (path, other)}
    kind = random.integers(4)
    if kind == 0:
        changed = bytearray(before[path])
        changed[random.integers(len(changed))] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
    elif kind == 1:
        path.write_bytes(before[path][: random.integers(len(before[path]))])
    elif kind == 2:
        path.write_bytes(before[other])
    else:
        path.unlink()

    def repair():
        for file, content in before.items():
            file.write_bytes(content)

    return path, repair


def read_at_once(memory, whole):
    return lambda: contents(memory) == whole


def read_in_a_graph(memory, whole):
    def read():
        images = [*memory.samples().images().as_numpy_iterator()]
        return np.stack(images).tobytes() == b"".join(whole[1].values())

    return read


READS = (read_at_once, read_in_a_graph)


def memory_of(storage):
    random = np.random.default_rng(7)
    labels = np.repeat([3, 1], [6, 5])
    images = random.integers(0, 256, (11, *SHAPE), "uint8")
    memory = ExemplarMemory(capacity=9, storage=storage)
    memory.update(ArraySamples(images, labels), features)
    return memory


def features(images):
    return np.stack([x.mean((0, 1)) for x in images.as_numpy_iterator()])


def contents(memory):
    images = {label: memory.images(label).tobytes() for label in memory.labels}
    return (memory.capacity, memory.seed), images


def as_bytes(arrays):
    return {name: (str(a.dtype), a.tobytes()) for name, a in arrays.items()}
