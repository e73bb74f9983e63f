"""One process at a time in a folder, for as long as it lives.

The kernel keeps the lock (`flock`), and takes it back when the process ends,
however it ends: there is never a lock of a dead process to wait for.
"""

import datetime
import os
import socket
import weakref

from keras_incremental.files import as_path, is_remote

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NAME = ".lock"


class FolderLock:
    """A lock on a file, held until this object is deleted.

    Args:
        path: the file; made if it is missing. It says who holds the lock.

    Raises:
        BlockingIOError: if another process holds it.
    """

    def __init__(self, path: str):
        self._path = path
        self._file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (held)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(error.errno, self._refusal()) from None
        self._file.truncate(0)
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        host = socket.gethostname()
        self._file.write(
            f"Process {os.getpid()} on host {host!r}, since {since},"
        )
        self._file.flush()

    def is_in_place(self) -> bool:
        """Whether the file is still the one at its path."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(self._file.fileno()), found)

    def close(self) -> None:
        """Closes the file; the lock goes with the last process that has it."""
        self._file.close()

    def _refusal(self) -> str:
        self._file.seek(0)
        who = self._file.read() or "Another process"
        self._file.close()
        return (
            f"{who} uses the folder {os.path.dirname(self._path)!r}, and is "
            "alive. Wait until it has ended, or end it and start again, or "
            "choose another folder."
        )


_held: weakref.WeakValueDictionary[str, FolderLock] = (
    weakref.WeakValueDictionary()
)


def lock_folder(folder) -> FolderLock | None:
    """Keeps other processes out of a folder, and never waits for one.

    Within a process all callers share one lock.

    Args:
        folder: `str` or path-like; made if it is missing.

    Returns:
        The lock, held for as long as it is referred to and the process lives;
        `None` where nothing can be locked: in an object store, on Windows, and
        on file systems without locks.

    Raises:
        BlockingIOError: if another process holds it; with who and since when.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> lock = lock_folder(folder)
    >>> lock is lock_folder(folder)
    True
    """
    folder = as_path(folder)
    if fcntl is None or is_remote(folder):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = os.path.join(os.path.realpath(folder), _NAME)
    lock = _held.get(path)
    if lock is None or not lock.is_in_place():
        try:
            lock = FolderLock(path)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.filename is not None:  # it could not be opened
                raise
            return None
        _held[path] = lock
    return lock


def _leave_to_parent() -> None:
    """Closes the files of a forked child, which would outlive its parent."""
    for lock in list(_held.values()):
        lock.close()
    _held.clear()


if fcntl is not None:
    os.register_at_fork(after_in_child=_leave_to_parent)
