"""Writing files so that a killed process leaves a whole one.

A path is local, or in an object store that `etils.epath` opens: `gs://...`
by TensorFlow itself, `s3://...`, `az://...` and `hf://...` where the file
system is installed.
"""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import tempfile
import uuid
import weakref
import zipfile

from etils import epath

try:
    import fcntl
except ImportError:  # on Windows: nothing that was left behind is deleted
    fcntl = None

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # not a drive of Windows
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{32}\.tmp", re.DOTALL)
_LOCK = "owner.lock"
_FULL = "Free some space there, or choose another folder."
_REFUSED = "Choose a folder that this process may write."
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _REFUSED),
}


def as_path(path):
    """Returns a `pathlib.Path`, or an `epath.Path` if there is a scheme.

    Args:
        path: `str` or path-like.

    Raises:
        TypeError: If `path` is not a path.
        ValueError: If `etils.epath` does not open the scheme, or `pathlib` has
            made `gs:/bucket` of `gs://bucket`.

    Example:

    >>> as_path("memory").name, as_path("gs://bucket/memory").name
    ('memory', 'memory')
    """
    text = os.fspath(path)
    if not _SCHEME.match(text):
        return pathlib.Path(text)
    with contextlib.suppress(KeyError):  # for another scheme
        remote = epath.Path(text)
        if "://" in str(remote):
            return remote
    raise ValueError(
        f"{text!r} is neither a local path nor one that etils.epath opens, "
        'such as "gs://bucket/folder". Pass a remote path as a string: '
        "pathlib.Path drops one of its slashes."
    )


def is_remote(path) -> bool:
    """Returns whether a path has a scheme, as `gs://bucket` has.

    >>> is_remote("memory"), is_remote("gs://bucket/memory")
    (False, True)
    """
    return isinstance(as_path(path), epath.Path)


class OwnedFolder:
    """A new hidden folder, `.<name>.<random>.tmp`, that goes with its owner.

    It is deleted with this object, or when the process ends. The owner holds
    a lock (`flock`) on a file in it, which the system releases however it ends:
    the next folder made beside it deletes those whose owner was killed, and no
    other. Where a file system has no locks, they stay.

    Args:
        parent: The local folder to make it in; made if missing.
        name: The first part of its name.

    >>> folder = OwnedFolder(tempfile.mkdtemp())
    >>> folder.close()
    >>> folder.path.exists()
    False
    """

    def __init__(self, parent, name: str = "keras_incremental"):
        parent = pathlib.Path(parent)
        make_folder(parent)
        _delete_abandoned(parent)
        self.path, lock = _new_owned(parent, name)
        # A forked child has this object too, and is not the owner.
        self.close = weakref.finalize(
            self, _delete_own, self.path, lock, os.getpid()
        )


def is_temporary(name: str) -> bool:
    """Returns whether a name is one that a save has until it is finished.

    >>> is_temporary("." + "m.keras." + 32 * "0" + ".tmp"), is_temporary(".git")
    (True, False)
    """
    return bool(_TEMPORARY.fullmatch(name))


def _temporary_name(name: str) -> str:
    return f".{name[:40]}.{uuid.uuid4().hex}.tmp"


def _new_owned(parent: pathlib.Path, name: str) -> tuple[pathlib.Path, int]:
    """Makes a folder; returns it and the descriptor of its lock."""
    while True:  # as another process may take it for abandoned
        folder = parent / _temporary_name(name)
        folder.mkdir(0o700)
        path = folder / _LOCK
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:
            continue
        except OSError:
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise
        _lock(lock, wait=True)
        if path.exists():
            return folder, lock
        os.close(lock)


def _lock(descriptor: int, wait: bool) -> bool:
    """Returns whether this process has locked a file."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (not wait and fcntl.LOCK_NB))
    except OSError:  # another process has, or the file system has no locks
        return False
    return True


def _delete_own(folder: pathlib.Path, lock: int, owner: int) -> None:
    os.close(lock)  # first: Windows deletes no open file
    if os.getpid() == owner:
        with contextlib.suppress(OSError):
            _delete(folder)


def _delete(folder: pathlib.Path) -> None:
    """Deletes a folder, its lock last, so that a kill leaves a marked one."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()
    shutil.rmtree(folder)


def _delete_abandoned(parent: pathlib.Path) -> None:
    """Deletes what killed processes have left in a folder, if it can."""
    for name in filter(is_temporary, os.listdir(parent)):
        folder = parent / name
        with contextlib.suppress(OSError):
            try:
                with open(folder / _LOCK, "r+b") as lock:
                    if _lock(lock.fileno(), wait=False):
                        _delete(folder)
            except FileNotFoundError:
                folder.rmdir()  # killed at its start; in use it is not empty


def make_folder(folder) -> None:
    """Makes a folder and its missing parents; their names are on disk.

    Args:
        folder: A path of `as_path`.
    """
    if is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)
    elif not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


@contextlib.contextmanager
def disk_errors(path, folder=None, advice=None):
    """Names `path`, and a way out, where the disk is full or not to be written.

    Args:
        path: What is to be written.
        folder: Errors that name a file outside of it are left as they are; by
            default that of `path`.
        advice: In place of a general one.
    """
    folder = os.path.dirname(path) if folder is None else folder
    try:
        yield
    except Exception as error:
        cause = _disk_error(error, os.fspath(folder))
        if cause is None:
            raise
        raise type(cause)(
            cause.errno,
            f"{str(path)!r} cannot be written: {os.strerror(cause.errno)}. "
            f"What was there is as it was. {advice or _ADVICE[cause.errno]}",
        ) from error


def _disk_error(error, folder: str) -> OSError | None:
    """Returns the disk's error behind an error, if it is of this folder."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _ADVICE:
            name = os.fspath(error.filename or folder)
            is_here = name.startswith(folder) or folder.startswith(name)
            return error if is_here else None
        error = error.__cause__ or error.__context__
    return None


def check_writable(folder) -> None:
    """Refuses a folder that cannot be written, before there is work to lose.

    If it does not exist, its nearest parent that does is tried.

    Raises:
        OSError: Naming the folder.
    """
    path = as_path(folder)
    if not is_remote(path):
        path = path.absolute()
        existing = next(p for p in (path, *path.parents) if p.exists())
        with disk_errors(path, existing):
            OwnedFolder(existing).close()


@contextlib.contextmanager
def replacing(path):
    """Yields the path of a new file, which becomes `path` after the body.

    The body writes the file in an `OwnedFolder` beside `path`; it is then
    flushed to disk and renamed. Whoever reads `path` sees the whole old file or
    the whole new one. If the body raises, or the process is killed, `path` is
    as it was.

    A file in an object store is written in a local folder, uploaded under a
    temporary name, and renamed there. What a killed process has uploaded
    stays: there are no locks to tell it from what another is uploading.

    Missing parent folders are made. A symbolic link is followed.

    Args:
        path: `str` or path-like, the file to write.

    Yields:
        The local path of the temporary file, with the name of `path`.

    Raises:
        IsADirectoryError: If `path` is a folder.
        OSError: If it cannot be written, as on a full disk; it is named.

    Example:

    >>> path = pathlib.Path(tempfile.mkdtemp(), "greeting.txt")
    >>> with replacing(path) as temporary:
    ...     _ = temporary.write_text("hello")
    >>> path.read_text()
    'hello'
    """
    target = as_path(path)
    if target.is_dir():
        raise IsADirectoryError(
            f"{str(path)!r} is a folder, expected the path of a file."
        )
    if is_remote(target):
        with _replacing_elsewhere(target) as temporary:
            yield temporary
        return
    target = pathlib.Path(os.path.realpath(target))
    with disk_errors(target):
        with contextlib.closing(OwnedFolder(target.parent, target.name)) as own:
            temporary = own.path / target.name
            yield temporary
            if target.exists():
                shutil.copymode(target, temporary)
            sync(temporary)
            temporary.replace(target)
        sync(target.parent)


@contextlib.contextmanager
def _replacing_elsewhere(target):
    make_folder(target.parent)
    temporary = target.with_name(_temporary_name(target.name))
    with tempfile.TemporaryDirectory() as folder:
        local = epath.Path(folder, target.name)
        yield pathlib.Path(local)
        try:
            local.copy(temporary)
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(Exception):
                temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def atomic_write(path, mode="wb"):
    """Opens `path` for writing; it changes only when the body has finished.

    Args:
        path: `str` or path-like, the file to write, as for `replacing`.
        mode: `"wb"` for bytes or `"w"` for UTF-8 text.

    Yields:
        The open temporary file.

    Raises:
        IsADirectoryError: If `path` is a folder.

    Example:

    >>> path = pathlib.Path(tempfile.mkdtemp(), "greeting.txt")
    >>> with atomic_write(path, "w") as file:
    ...     _ = file.write("hello")
    >>> path.read_text()
    'hello'
    """
    encoding = "utf-8" if mode == "w" else None
    with (
        replacing(path) as temporary,
        open(temporary, mode, encoding=encoding) as file,
    ):
        yield file


@contextlib.contextmanager
def checked_archive(path):
    """Yields the local path of a zip archive, all of which has been checked.

    Every entry is read and compared with its checksum (CRC-32). An archive in
    an object store is downloaded; the copy is removed after the body.

    Args:
        path: `str` or path-like, the archive.

    Raises:
        zipfile.BadZipFile: If an entry is not what was saved; other errors are
            raised for other damage.
    """
    with contextlib.ExitStack() as stack:
        local = as_path(path)
        if is_remote(local):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            local = pathlib.Path(local.copy(epath.Path(folder, local.name)))
        with zipfile.ZipFile(local) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(
                f"its entry {damaged!r} is not what was saved"
            )
        yield local


def sync_tree(folder):
    """Flushes a folder, and all that is in it, to disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            sync(os.path.join(parent, name))
        sync(parent)


def sync(path):
    """Flushes a file, or the names in a folder, to disk."""
    is_posix = os.name == "posix"
    if not is_posix and os.path.isdir(path):
        return  # Windows does not open a folder
    # Windows flushes only what is open for writing.
    descriptor = os.open(path, os.O_RDONLY if is_posix else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
