"""A memory's folder on disk: written whole, never pickled, never trusted."""

import hashlib
import json
import pathlib
import re
import tempfile

import numpy as np

from keras_incremental.files import (
    RemotePath,
    as_path,
    atomic_directory,
    atomic_write,
    recover_directory,
)

FORMAT_VERSION = 1
_RECORD, _IMAGES = "memory.json", "images.npy"
_IMAGES_APART = re.compile(r"images-[0-9a-f]{16}\.npy")
_PART_BYTES = 2**20
_SETTINGS = {"capacity", "per_class", "selection", "seed"}


def write(directory, settings: dict, images: dict) -> None:
    """Writes `memory.json` and `images.npy`, replacing the folder at once.

    A remote folder cannot be replaced at once: there the images get a name of
    their own, `images-<checksum>.npy`, before `memory.json` names them, and
    those that it named before are removed last.

    Args:
        directory: the folder.
        settings: JSON types: capacity, per_class, selection, seed.
        images: by label, `(count, h, w, c)` each.
    """
    folder = as_path(directory)
    if isinstance(folder, RemotePath):
        with tempfile.TemporaryDirectory() as local:
            _send(_fill(pathlib.Path(local), settings, images), local, folder)
    else:
        with atomic_directory(folder) as temporary:
            record = _fill(temporary, settings, images)
            _write_record(temporary / _RECORD, record)


def _fill(folder: pathlib.Path, settings: dict, images: dict) -> dict:
    """Writes the images into a folder; returns what `memory.json` is to say."""
    record = {
        "format_version": FORMAT_VERSION,
        **settings,
        "labels": list(images),
        "counts": [len(ranked) for ranked in images.values()],
    }
    if images:
        path = folder / _IMAGES
        np.save(path, np.concatenate([*images.values()]), False)
        record["sha256"] = _sha256(path)
    return record


def _write_record(path, record: dict) -> None:
    record = {**record, "checksum": _checksum(record)}
    with atomic_write(path, "w") as file:
        file.write(json.dumps(record, indent=1))


def _checksum(record: dict) -> str:
    text = json.dumps(record, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _send(record: dict, local: str, folder: RemotePath) -> None:
    if record["labels"]:
        record["images"] = f"images-{record['sha256'][:16]}.npy"
        (folder / record["images"]).copy_from(pathlib.Path(local, _IMAGES))
    _write_record(folder / _RECORD, record)
    for path in folder.glob("images-*.npy"):
        if path.name != record.get("images"):
            path.unlink(missing_ok=True)


def read(directory) -> tuple[dict, dict]:
    """Returns `(settings, images by label)` as `write` took them.

    Raises:
        FileNotFoundError: if the folder or a file in it is missing.
        ValueError: if a file is damaged or of a newer format; it is named.
    """
    folder = as_path(directory)
    if not isinstance(folder, RemotePath):
        folder = recover_directory(folder)
    record = _read_record(folder / _RECORD)
    images = {}
    if record["labels"]:
        stored = _read_images(folder / record.get("images", _IMAGES), record)
        parts = np.split(stored, np.cumsum(record["counts"])[:-1])
        images = dict(zip(record["labels"], parts, strict=True))
    return {key: record[key] for key in _SETTINGS}, images


def _sha256(path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_PART_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _read_record(path) -> dict:
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
    # Files of before there was a checksum have none.
    checksum = record.pop("checksum", None)
    if checksum not in (None, _checksum(record)):
        raise ValueError(f"{path} is damaged: its checksum is wrong.")
    name = record.get("images", _IMAGES)
    if name != _IMAGES and not _IMAGES_APART.fullmatch(name):
        raise ValueError(f"{path} is damaged: it names the images {name!r}.")
    if not complete or len(record["labels"]) != len(record["counts"]):
        raise ValueError(f"{path} is damaged: it is not complete.")
    return record


def _read_images(path, record: dict) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, but memory.json does.")
    if _sha256(path) != record.get("sha256"):
        raise ValueError(
            f"{path} is damaged: its checksum is not the one in memory.json."
        )
    with path.open("rb") as file:
        images = np.load(file, allow_pickle=False)
    if len(images) != sum(record["counts"]):
        raise ValueError(
            f"{path} holds {len(images)} images, but memory.json counts "
            f"{sum(record['counts'])}."
        )
    return images
