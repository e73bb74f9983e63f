"""A memory's folder: one file, written whole, never pickled, all checked.

`memory.npz` is a zip archive of `memory.json` and, for each class in turn, the
arrays of `ClassExemplars.to_arrays`. That it begins with `memory.json` is the
mark of a memory's folder: one without such a file is not written into.
"""

import inspect
import json
import numbers
import zipfile

import keras
import numpy as np

from keras_incremental.archives import check_members, parsed, read_array
from keras_incremental.exemplars.class_exemplars import ClassExemplars
from keras_incremental.exemplars.ranking import Selection
from keras_incremental.exemplars.selection import (
    herding_order,
    nearest_to_mean_order,
    random_order,
)
from keras_incremental.exemplars.storages import Storage
from keras_incremental.files import (
    as_path,
    checked_archive,
    is_temporary,
    replacing,
)
from keras_incremental.labels import as_label

_FILE, _RECORD = "memory.npz", "memory.json"
_ZIP_HEADER = 30  # bytes before the name of an archive's first entry
# The arguments of `ExemplarMemory`.
_SETTINGS = ("capacity", "per_class", "storage", "selection", "seed")

for _order in (herding_order, random_order, nearest_to_mean_order):
    keras.saving.register_keras_serializable("keras_incremental")(_order)


def write(directory, memory) -> None:
    """Writes `memory.npz` into a folder, replacing an older one at once.

    Args:
        directory: The folder, local or one that `keras_incremental.files`
            opens; made if missing.
        memory: An `ExemplarMemory`.

    Raises:
        FileExistsError: If there is something in the folder, and no memory.
        OSError: If it cannot be written; what was there is as it was.
    """
    _check_own(as_path(directory))
    exemplars = memory.stored()
    record = {
        **{name: getattr(memory, name) for name in _SETTINGS},
        "storage": storage_record(memory.storage),
        "selection": keras.saving.get_registered_name(memory.selection),
        "labels": list(exemplars),
    }
    with (
        replacing(as_path(directory) / _FILE) as path,
        zipfile.ZipFile(path, "w") as archive,
    ):
        # A `ZipInfo` has no date: equal memories give equal bytes.
        archive.writestr(zipfile.ZipInfo(_RECORD), json.dumps(record, indent=1))
        for index, ranked in enumerate(exemplars.values()):
            for name, array in ranked.to_arrays().items():
                entry = zipfile.ZipInfo(f"{index}/{name}.npy")
                with archive.open(entry, "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)


def _check_own(folder) -> None:
    """Refuses a folder that holds something else than a memory."""
    if not folder.is_dir():
        return
    names = [path.name for path in folder.iterdir()]
    found = sorted(name for name in names if not is_temporary(name))
    if found and not _is_own(folder / _FILE):
        raise FileExistsError(
            f"{str(folder)!r} holds {found[:5]} ({len(found)} in all), and no "
            f"{_FILE} that ExemplarMemory.save wrote. Save into a new or empty "
            "folder, or into one that holds a memory, which is replaced. "
            "Nothing in it was changed."
        )


def _is_own(path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_ZIP_HEADER + len(_RECORD))
    return head.startswith(b"PK") and head.endswith(_RECORD.encode())


def memory_file(directory):
    """Returns the path of the file in a memory's folder.

    Raises:
        FileNotFoundError: If the folder or its file is missing.
    """
    path = as_path(directory) / _FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist. Expected a folder that "
            "ExemplarMemory.save wrote."
        )
    return path


def read(
    path, selection: Selection | None, storage: Storage | None
) -> tuple[dict, dict[int | str, ClassExemplars]]:
    """Reads what `write` wrote: the settings, and the exemplars by label.

    Args:
        path: Of the file (`memory_file`).
        selection: In place of the one that was saved.
        storage: In place of the one that was saved; the exemplars are moved
            to it, class by class.

    Raises:
        ValueError: If the file is not a memory that can be loaded; other
            errors are raised for other damage.
    """
    with (
        checked_archive(path) as local,
        zipfile.ZipFile(local) as archive,
    ):
        check_members(archive, local.stat().st_size)
        return _read(archive, selection, storage)


def _read(archive, selection, storage):
    settings = parsed(archive.read(_RECORD))
    _check_settings(settings)
    saved = _recorded_storage(settings["storage"])
    settings["storage"] = storage or saved
    settings["selection"] = selection or _recorded_selection(
        settings["selection"]
    )
    exemplars = {}
    labels = settings.pop("labels")
    entries = _entries_by_class(archive, len(labels))
    for label, names in zip(labels, entries, strict=True):
        ranked = ClassExemplars.from_arrays(
            saved, {key: read_array(archive, names[key]) for key in names}
        )
        if storage not in (None, saved):
            storage.check(ranked.image_spec)
            ranked = ranked.moved_to(storage)
        exemplars[label] = ranked
    return settings, exemplars


def _check_settings(settings) -> None:
    """Refuses a record with other fields or types than `write` gives it."""
    expected = {*_SETTINGS, "labels"}
    if not isinstance(settings, dict) or settings.keys() != expected:
        raise ValueError(
            f"{_RECORD} in it has the fields {sorted(settings)}; expected "
            f"{sorted(expected)}."
        )
    is_valid = (
        isinstance(settings["labels"], list)
        and all(type(label) in (int, str) for label in settings["labels"])
        and len({*settings["labels"]}) == len(settings["labels"])
        and isinstance(settings["selection"], str)
        and isinstance(settings["seed"], numbers.Integral)
    )
    if not is_valid:
        raise ValueError(
            f"{_RECORD} in it has labels, a selection or a seed of another "
            "type, or a label twice."
        )
    for label in settings["labels"]:
        as_label(label)  # refuses what is none


def storage_record(storage: Storage) -> dict:
    """Returns what `ExemplarMemory.load` makes the same storage of, JSON types.

    >>> from keras_incremental.exemplars import JpegStorage
    >>> storage_record(JpegStorage(90))["config"]
    {'quality': 90}
    """
    return {
        "name": keras.saving.get_registered_name(type(storage)),
        "config": storage.get_config(),
    }


def _recorded_storage(record: dict) -> Storage:
    """Makes a storage of what `storage_record` returned.

    Raises:
        ValueError: If its class is not registered with `keras.saving`, or is
            no `Storage`.
    """
    kind = _registered(record["name"], "Import the module that registers it.")
    if not (isinstance(kind, type) and issubclass(kind, Storage)):
        raise ValueError(f"{record['name']!r} is no Storage.")
    return kind.from_config(record["config"])


def _recorded_selection(name: str) -> Selection:
    """Returns the selection that is registered under a name; it is not called.

    Raises:
        ValueError: If nothing is, or nothing that selects.
    """
    found = _registered(
        name, "Pass it: ExemplarMemory.load(directory, selection=...)."
    )
    if isinstance(found, type) or len(inspect.signature(found).parameters) != 3:
        raise ValueError(
            f"{name!r} is no selection, which is a function (features, count, "
            "seed) -> indices."
        )
    return found


def _registered(name: str, advice: str):
    """Returns what is registered with `keras.saving` under a name.

    Raises:
        ValueError: If nothing is; it ends with the advice.
    """
    found = keras.saving.get_registered_object(name)
    if found is None:
        raise ValueError(
            f"The memory was saved with {name!r}, which is not registered with "
            f"keras.saving. {advice}"
        )
    return found


def _entries_by_class(archive, classes: int) -> list[dict[str, str]]:
    """Returns, for each class, the archive's entries by the array's name."""
    entries: list[dict[str, str]] = [{} for _ in range(classes)]
    for name in archive.namelist():
        if name == _RECORD:
            continue
        index, _, key = name.removesuffix(".npy").partition("/")
        if not index.isdecimal() or int(index) >= classes:
            raise ValueError(f"its entry {name!r} is of none of its classes.")
        entries[int(index)][key] = name
    return entries
