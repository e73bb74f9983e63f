"""Writing files so that a killed process leaves a whole one.

A path is local, or in an object store that `etils.epath` opens: `gs://...`
by TensorFlow itself, `s3://...`, `az://...` and `hf://...` where the file
system is installed.
"""

import contextlib
import os
import pathlib
import re
import shutil
import tempfile
import uuid
import zipfile

from etils import epath

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # not a drive of Windows


def as_path(path):
    """Returns a `pathlib.Path`, or an `epath.Path` if there is a scheme.

    Args:
        path: `str` or path-like, such as `"memory"` or `"gs://bucket/memory"`.

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


@contextlib.contextmanager
def replacing(path):
    """Yields the path of a new file, which becomes `path` after the body.

    The body writes the file under a temporary name in the same folder; it is
    then flushed to disk and renamed. Whoever reads `path` sees the whole old
    file or the whole new one. If the body raises, the temporary file is
    removed and `path` is as it was. A process that is killed may leave the
    temporary file (`.tmp.<random>.<name>`), never a partial `path`.

    A file in an object store is written in a local folder, uploaded under a
    temporary name, and renamed there.

    Missing parent folders are made, as what is written here is often the
    last thing a long training does. A symbolic link is followed.

    Args:
        path: `str` or path-like, the file to write.

    Yields:
        The local path of the temporary file, with the suffix of `path`.

    Raises:
        IsADirectoryError: If `path` is a folder.

    Example:

    >>> path = pathlib.Path(tempfile.mkdtemp(), "greeting.txt")
    >>> with replacing(path) as temporary:
    ...     _ = temporary.write_text("hello")
    >>> path.read_text()
    'hello'
    """
    target = as_path(path)
    if not is_remote(target):
        target = pathlib.Path(os.path.realpath(target))
    if target.is_dir():
        raise IsADirectoryError(
            f"{str(path)!r} is a folder, expected the path of a file."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`: its files are unreadable to other users, also once
    # renamed, whatever the umask says.
    temporary = target.with_name(f".tmp.{uuid.uuid4().hex[:12]}.{target.name}")
    try:
        if is_remote(target):
            with tempfile.TemporaryDirectory() as folder:
                local = epath.Path(folder, target.name)
                yield pathlib.Path(local)
                local.copy(temporary)
        else:
            yield temporary
            if target.exists():
                shutil.copymode(target, temporary)
            sync(temporary)
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(Exception):
            temporary.unlink(missing_ok=True)
        raise
    if not is_remote(target):
        sync(target.parent)


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
