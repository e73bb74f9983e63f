"""A memory's folder on disk: written whole, never pickled, never trusted.

Format 1 holds raw images and a budget of images. Format 2 adds the budget in
bytes, the storage and, where images are encoded, their sizes. What format 1
can say is written in it, for older versions to read.
"""

import hashlib
import json
import pathlib
import re
import tempfile
from collections.abc import Iterator

from keras_incremental.exemplars.class_exemplars import ClassExemplars
from keras_incremental.exemplars.codecs import (
    RawStorage,
    Storage,
    storage_record,
)
from keras_incremental.exemplars.npy_images import (
    read_images_file,
    write_images_file,
)
from keras_incremental.files import (
    RemotePath,
    as_path,
    atomic_directory,
    atomic_write,
    recover_directory,
)

FORMAT_VERSION = 2
_RECORD, _IMAGES = "memory.json", "images.npy"
_IMAGES_APART = re.compile(r"images-[0-9a-f]{16}\.npy")
_PART_BYTES = 2**20
_SETTINGS = {"capacity", "per_class", "selection", "seed"}
_ADDED = {"budget": None, "storage": storage_record(RawStorage())}


def write(directory, settings: dict, images: dict) -> None:
    """Writes `memory.json` and `images.npy`, replacing the folder at once.

    A remote folder cannot be replaced at once: there the images get a name of
    their own, `images-<checksum>.npy`, before `memory.json` names them, and
    those that it named before are removed last.

    Args:
        directory: the folder.
        settings: JSON types: capacity, per_class, budget, storage, selection,
            seed.
        images: `ClassExemplars` by label.
    """
    folder = as_path(directory)
    if isinstance(folder, RemotePath):
        with tempfile.TemporaryDirectory() as local:
            _send(_fill(pathlib.Path(local), settings, images), local, folder)
    else:
        with atomic_directory(folder) as temporary:
            record = _fill(temporary, settings, images)
            _write_record(temporary / _RECORD, record)


def read_settings(directory) -> dict:
    """Returns the settings as `write` took them.

    Raises:
        FileNotFoundError: if the folder or a file in it is missing.
        ValueError: if a file is damaged or of a newer format; it is named.
    """
    record = _read_record(_found(directory) / _RECORD)
    return {key: record[key] for key in (*_SETTINGS, *_ADDED)}


def read_images(
    directory, storage: Storage
) -> Iterator[tuple[int | str, ClassExemplars]]:
    """Yields labels and images, class by class, as `write` took them.

    Args:
        directory: the folder.
        storage: as they were stored.

    Raises:
        FileNotFoundError, ValueError: as `read_settings`.
    """
    folder = _found(directory)
    record = _read_record(folder / _RECORD)
    path = folder / record.get("images", _IMAGES)
    if not record["labels"]:
        return
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, but memory.json does.")
    if _sha256(path) != record.get("sha256"):
        raise ValueError(
            f"{path} is damaged: its checksum is not the one in memory.json."
        )
    with path.open("rb") as file:
        yield from zip(
            record["labels"],
            read_images_file(file, path, storage, record),
            strict=True,
        )


def _fill(folder: pathlib.Path, settings: dict, images: dict) -> dict:
    """Writes the images into a folder; returns what `memory.json` is to say."""
    is_first = all(settings[key] == value for key, value in _ADDED.items())
    record = {
        "format_version": 1 if is_first else FORMAT_VERSION,
        **{k: settings[k] for k in settings if not is_first or k in _SETTINGS},
        "labels": list(images),
        "counts": [len(ranked) for ranked in images.values()],
    }
    if images:
        path = folder / _IMAGES
        with path.open("wb") as file:
            record.update(write_images_file(file, [*images.values()]))
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


def _found(directory):
    folder = as_path(directory)
    return (
        folder
        if isinstance(folder, RemotePath)
        else as_path(recover_directory(folder))
    )


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
    if version not in range(1, FORMAT_VERSION + 1):
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
    if version == 1:
        record = {**record, **_ADDED}
    complete = complete and _ADDED.keys() <= record.keys()
    if not complete or len(record["labels"]) != len(record["counts"]):
        raise ValueError(f"{path} is damaged: it is not complete.")
    return record
