"""A folder of backups, of which the newest whole one counts.

Arrays are kept in blobs, `<sha256>.npz`, named by what they hold, so that
what does not change from one backup to the next is written once. A backup is
a small file, `state-<number>.json`, that names its blobs. It is written after
them, under a temporary name, synced and renamed: a process that is killed at
any moment leaves the backup before, or the new one. Nothing is pickled; what
is read is checked against its SHA-256 first. All of that holds for a folder
in an object store too.

One process writes into a folder at a time, and only one that has the lock
removes temporary files. An object store has no locks: there a process stops
once it finds a backup that it has not written.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping

import numpy as np

from keras_incremental.archives import check_members, parsed, read_array
from keras_incremental.files import as_path, atomic_write
from keras_incremental.locks import FolderLock, lock_folder

_KEPT = 2
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_BLOB = re.compile("[0-9a-f]{64}")


class BackupFolder:
    """Writes and reads the backups of one run.

    Args:
        directory: The folder, local or one that `keras_incremental.files`
            opens; it is made by the first `put`.

    Raises:
        NotADirectoryError: If `directory` is a file.

    >>> import tempfile
    >>> folder = BackupFolder(tempfile.mkdtemp())
    >>> blob = folder.put({"weights": np.arange(3)})
    >>> folder.commit({"epoch": 7}, {"model": blob})
    >>> record, blobs = folder.read()
    >>> record["epoch"], folder.get(blobs["model"])["weights"].tolist()
    (7, [0, 1, 2])
    """

    def __init__(self, directory):
        self.path = as_path(directory)
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(
                f"backup_dir={str(directory)!r} is a file; expected a folder."
            )
        self._lock: FolderLock | None = None
        self._newest: int | None = None  # that this process knows of

    def lock(self) -> None:
        """Keeps other processes from writing; called before `read`.

        Raises:
            BlockingIOError: If another process writes into the folder.
        """
        self._lock = lock_folder(self.path)

    def put(self, arrays: Mapping[str, np.ndarray]) -> str:
        """Writes named arrays, unless they are there; returns their blob."""
        objects = [name for name in arrays if arrays[name].dtype.hasobject]
        if objects:
            raise ValueError(
                f"The arrays {objects} hold objects, which only "
                "allow_pickle=True would write and read; expected numbers."
            )
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        content = buffer.getvalue()  # equal arrays give equal bytes
        blob = hashlib.sha256(content).hexdigest()
        if not self._is_whole(blob):
            with atomic_write(self._blob(blob)) as file:
                file.write(content)
        return blob

    def get(self, blob: str) -> dict[str, np.ndarray]:
        """Reads the arrays of a blob, after checking its checksum.

        Raises:
            ValueError: If the file is missing or damaged; it is named.
        """
        content = self._checked(blob)
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                check_members(archive, len(content))
                return {
                    name.removesuffix(".npy"): read_array(archive, name)
                    for name in archive.namelist()
                }
        except Exception as error:  # of many kinds, in NumPy and zipfile
            raise _DamagedError(
                f"{self._blob(blob)} is damaged: {error}"
            ) from error

    def commit(self, record: Mapping, blobs: Mapping[str, str]) -> None:
        """Makes a backup of a record (JSON types) and of blobs put before.

        The backup before this one is kept; older ones are removed.

        Raises:
            RuntimeError: If another process has made a backup meanwhile.
        """
        numbers = self._numbers()
        number = numbers[-1] + 1 if numbers else 0
        if self._newest is not None and number - 1 > self._newest:
            raise RuntimeError(
                f"{self._state(number - 1)} was written by another process or "
                "run while this one was under way. Let one at a time use a "
                "folder, and start it again: it goes on from the newest backup."
            )
        self._newest = number
        content = {"record": dict(record), "blobs": dict(blobs)}
        with atomic_write(self._state(number), "w") as file:
            json.dump({"sha256": _checksum(content), **content}, file)
        self._remove_all_but([*numbers, number][-_KEPT:])

    def read(self) -> tuple[dict, dict[str, str]] | None:
        """Returns record and blobs of the newest backup that is whole.

        Returns:
            `None` if there is no backup.

        Raises:
            ValueError: If there are backups and none is whole; the files are
                named.
        """
        damage, numbers = [], self._numbers()
        self._newest = numbers[-1] if numbers else -1
        for number in reversed(numbers):
            try:
                return self._read(self._state(number))
            except _DamagedError as error:
                damage.append(str(error))
        if damage:
            raise ValueError(
                "No backup is whole. " + " ".join(damage) + " Remove the "
                f"folder {self.path} to start anew."
            )
        return None

    def _read(self, path) -> tuple[dict, dict[str, str]]:
        try:
            content = parsed(path.read_text(encoding="utf-8"))
            checksum, found = content.pop("sha256"), _checksum(content)
        except (*_MALFORMED, OSError) as error:
            raise _DamagedError(f"{path} is damaged: {error!r}.") from error
        if found != checksum:
            raise _DamagedError(f"{path} is damaged: its checksum is wrong.")
        if not (
            content.keys() == {"record", "blobs"}
            and all(isinstance(part, dict) for part in content.values())
        ):
            raise _DamagedError(
                f"{path} has the fields {sorted(content)}; expected 'record' "
                "and 'blobs', both of names and values."
            )
        for blob in content["blobs"].values():
            self._checked(blob)
        return content["record"], content["blobs"]

    def _checked(self, blob: str) -> bytes:
        if not isinstance(blob, str) or not _BLOB.fullmatch(blob):
            raise _DamagedError(f"{self.path} has no array file {blob!r}.")
        path = self._blob(blob)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _DamagedError(f"{path} cannot be read: {error}.") from error
        if hashlib.sha256(content).hexdigest() != blob:
            raise _DamagedError(f"{path} is damaged: its checksum is wrong.")
        return content

    def _is_whole(self, blob: str) -> bool:
        try:
            self._checked(blob)
        except _DamagedError:
            return False
        return True

    def _remove_all_but(self, kept: list[int]) -> None:
        """Removes older backups, and the blobs of none that is kept."""
        for number in self._numbers():
            if number not in kept:
                self._state(number).unlink(missing_ok=True)
        used = set()
        for number in kept:
            try:
                text = self._state(number).read_text(encoding="utf-8")
                used.update(json.loads(text)["blobs"].values())
            except (*_MALFORMED, OSError):
                return  # a damaged one: remove nothing that it may need
        for path in self.path.glob("*.npz"):
            if path.stem not in used:
                path.unlink(missing_ok=True)

    def _numbers(self) -> list[int]:
        paths = self.path.glob("state-*.json")
        texts = [path.stem.removeprefix("state-") for path in paths]
        return sorted(int(text) for text in texts if text.isdecimal())

    def _state(self, number: int):
        return self.path / f"state-{number:08}.json"

    def _blob(self, blob: str):
        return self.path / f"{blob}.npz"


class _DamagedError(ValueError):
    """A file that is not what was written."""


def _checksum(content: dict) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
