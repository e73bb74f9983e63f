"""A memory's folder on disk: written whole, never pickled, never trusted.

Format 1 holds raw images and a budget of images. Format 2 adds the budget in
bytes, the storage and, where images are encoded, their sizes. What format 1
can say is written in it, for older versions to read.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterator

from keras_incremental.exemplars.image_files import (
    read_images_file,
    write_images_file,
)
from keras_incremental.exemplars.image_storage import (
    RawStorage,
    Storage,
    storage_record,
)
from keras_incremental.exemplars.stored_images import StoredImages
from keras_incremental.files import atomic_directory, recover_directory

FORMAT_VERSION = 2
_SETTINGS = {"capacity", "per_class", "selection", "seed"}
_ADDED = {"budget": None, "storage": storage_record(RawStorage())}


def write(directory, settings: dict, images: dict) -> None:
    """Writes `memory.json` and `images.npy`, replacing the folder at once.

    Args:
        directory: the folder.
        settings: JSON types: capacity, per_class, budget, storage, selection,
            seed.
        images: `StoredImages` by label.
    """
    is_first = all(settings[key] == value for key, value in _ADDED.items())
    record = {
        "format_version": 1 if is_first else FORMAT_VERSION,
        **{k: settings[k] for k in settings if not is_first or k in _SETTINGS},
        "labels": list(images),
        "counts": [len(ranked) for ranked in images.values()],
    }
    with atomic_directory(directory) as folder:
        if images:
            path = folder / "images.npy"
            with path.open("wb") as file:
                record.update(write_images_file(file, [*images.values()]))
            record["sha256"] = _sha256(path)
        text = json.dumps(record, indent=1)
        (folder / "memory.json").write_text(text, encoding="utf-8")


def read_settings(directory) -> dict:
    """Returns the settings as `write` took them.

    Raises:
        FileNotFoundError: if the folder or a file in it is missing.
        ValueError: if a file is damaged or of a newer format; it is named.
    """
    folder = pathlib.Path(recover_directory(directory))
    record = _read_record(folder / "memory.json")
    return {key: record[key] for key in (*_SETTINGS, *_ADDED)}


def read_images(
    directory, storage: Storage
) -> Iterator[tuple[int | str, StoredImages]]:
    """Yields labels and images, class by class, as `write` took them.

    Args:
        directory: the folder.
        storage: as they were stored.

    Raises:
        FileNotFoundError, ValueError: as `read_settings`.
    """
    folder = pathlib.Path(recover_directory(directory))
    record = _read_record(folder / "memory.json")
    path = folder / "images.npy"
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
    if version not in range(1, FORMAT_VERSION + 1):
        raise ValueError(
            f"{path} has format version {version}; this version of "
            f"keras_incremental reads {FORMAT_VERSION}. Update the package."
        )
    if version == 1:
        record = {**record, **_ADDED}
    complete = complete and _ADDED.keys() <= record.keys()
    if not complete or len(record["labels"]) != len(record["counts"]):
        raise ValueError(f"{path} is damaged: it is not complete.")
    return record
