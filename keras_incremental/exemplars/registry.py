"""What a memory's file says of its storage and its selection."""

import keras

from keras_incremental.exemplars.storages import Storage


def storage_record(storage: Storage) -> dict:
    """Returns what `recorded_storage` makes the same storage of, JSON types.

    >>> from keras_incremental.exemplars import JpegStorage
    >>> storage_record(JpegStorage(90))["config"]
    {'quality': 90}
    """
    return {
        "name": keras.saving.get_registered_name(type(storage)),
        "config": storage.get_config(),
    }


def registered(name: str, advice: str):
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


def recorded_storage(record: dict) -> Storage:
    """Makes a storage of what `storage_record` returned.

    Raises:
        ValueError: If its class is not registered with `keras.saving`, or is
            no `Storage`.
    """
    kind = registered(record["name"], "Import the module that registers it.")
    if not (isinstance(kind, type) and issubclass(kind, Storage)):
        raise ValueError(f"{record['name']!r} is no Storage.")
    return kind.from_config(record["config"])
