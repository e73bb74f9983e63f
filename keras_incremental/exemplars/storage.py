"""A memory's folder on disk: written whole, never pickled, never trusted."""

import hashlib
import json
import pathlib

import numpy as np

from keras_incremental.files import atomic_directory, recover_directory

FORMAT_VERSION = 1
_SETTINGS = {"capacity", "per_class", "selection", "seed"}


def write(directory, settings: dict, images: dict) -> None:
    """Writes `memory.json` and `images.npy`, replacing the folder at once.

    Args:
        directory: the folder.
        settings: JSON types: capacity, per_class, selection, seed.
        images: by label, `(count, h, w, c)` each.
    """
    record = {
        "format_version": FORMAT_VERSION,
        **settings,
        "labels": list(images),
        "counts": [len(ranked) for ranked in images.values()],
    }
    with atomic_directory(directory) as folder:
        if images:
            path = folder / "images.npy"
            np.save(path, np.concatenate([*images.values()]), False)
            record["sha256"] = _sha256(path)
        text = json.dumps(record, indent=1)
        (folder / "memory.json").write_text(text, encoding="utf-8")


def read(directory) -> tuple[dict, dict]:
    """Returns `(settings, images by label)` as `write` took them.

    Raises:
        FileNotFoundError: if the folder or a file in it is missing.
        ValueError: if a file is damaged or of a newer format; it is named.
    """
    folder = pathlib.Path(recover_directory(directory))
    record = _read_record(folder / "memory.json")
    images = {}
    if record["labels"]:
        stored = _read_images(folder / "images.npy", record)
        parts = np.split(stored, np.cumsum(record["counts"])[:-1])
        images = dict(zip(record["labels"], parts, strict=True))
    return {key: record[key] for key in _SETTINGS}, images


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_record(path: pathlib.Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist. Expected a folder that "
            "ExemplarMemory.save wrote."
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record["format_version"]
        complete = {*_SETTINGS, "labels", "counts"} <= record.keys()
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}.") from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}; this version of "
            f"keras_incremental reads {FORMAT_VERSION}. Update the package."
        )
    if not complete or len(record["labels"]) != len(record["counts"]):
        raise ValueError(f"{path} is damaged: it is not complete.")
    return record


def _read_images(path: pathlib.Path, record: dict) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, but memory.json does.")
    if _sha256(path) != record.get("sha256"):
        raise ValueError(
            f"{path} is damaged: its checksum is not the one in memory.json."
        )
    images = np.load(path, allow_pickle=False)
    if len(images) != sum(record["counts"]):
        raise ValueError(
            f"{path} holds {len(images)} images, but memory.json counts "
            f"{sum(record['counts'])}."
        )
    return images
