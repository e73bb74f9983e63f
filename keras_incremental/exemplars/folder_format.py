"""A memory's folder: one file, written whole, never pickled, all checked.

`memory.npz` is a zip archive of `memory.json` and, for each class in turn, the
arrays of `ClassExemplars.to_arrays`. That it begins with `memory.json` is the
mark of a memory's folder: one without such a file is not written into.
"""

import json
import zipfile

import keras
import numpy as np

from keras_incremental.exemplars.class_exemplars import ClassExemplars
from keras_incremental.exemplars.ranking import Selection
from keras_incremental.exemplars.selection import (
    herding_order,
    nearest_to_mean_order,
    random_order,
)
from keras_incremental.exemplars.storages import (
    Storage,
    recorded_storage,
    registered,
    storage_record,
)
from keras_incremental.files import (
    as_path,
    checked_archive,
    is_temporary,
    replacing,
)

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


def read(
    directory,
    selection: Selection | None = None,
    storage: Storage | None = None,
) -> tuple[dict, dict[int | str, ClassExemplars]]:
    """Reads what `write` wrote: the settings, and the exemplars by label.

    Args:
        directory: The folder.
        selection: In place of the one that was saved.
        storage: In place of the one that was saved; the exemplars are moved
            to it, class by class.

    Raises:
        FileNotFoundError: If the folder or its file is missing.
        ValueError: If the file is damaged, or is not a memory that can be
            loaded; it is named.
    """
    path = as_path(directory) / _FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist. Expected a folder that "
            "ExemplarMemory.save wrote."
        )
    try:
        with (
            checked_archive(path) as local,
            np.load(local, allow_pickle=False) as arrays,
        ):
            return _read(arrays, selection, storage)
    except Exception as error:  # of many kinds, for damage in many places
        raise ValueError(
            f"{path} is damaged, or cannot be loaded: {error}"
        ) from error


def _read(arrays, selection, storage):
    settings = json.loads(arrays[_RECORD])
    expected = {*_SETTINGS, "labels"}
    if settings.keys() != expected:
        raise ValueError(
            f"{_RECORD} in it has the fields {sorted(settings)}; expected "
            f"{sorted(expected)}."
        )
    saved = recorded_storage(settings["storage"])
    settings["storage"] = storage or saved
    settings["selection"] = selection or registered(
        settings["selection"],
        "Pass it: ExemplarMemory.load(directory, selection=...).",
    )
    exemplars = {}
    for index, label in enumerate(settings.pop("labels")):
        prefix = f"{index}/"
        ranked = ClassExemplars.from_arrays(
            saved,
            {
                name.removeprefix(prefix): arrays[name]
                for name in arrays.files
                if name.startswith(prefix)
            },
        )
        if storage not in (None, saved):
            storage.check(ranked.image_spec)
            ranked = ranked.moved_to(storage)
        exemplars[label] = ranked
    return settings, exemplars
