"""Writing files and folders so that a killed process leaves a whole one.

Paths are local, or anything else that `tf.io.gfile` opens: `gs://...`,
`hdfs://...`, `ram://...`. `as_path` tells them apart; a `RemotePath` has the
methods of `pathlib.Path` that are needed here.
"""

import contextlib
import errno
import fnmatch
import io
import os
import pathlib
import re
import shutil
import uuid

import tensorflow as tf


def as_path(path):
    """Returns a `pathlib.Path`, or a `RemotePath` if there is a scheme.

    Args:
        path: `str` or path-like, such as `"memory"` or `"gs://bucket/memory"`.

    Raises:
        TypeError: If `path` is no path.
        ValueError: If `pathlib` has made `gs:/bucket` of `gs://bucket`.

    Example:

    >>> as_path("memory").name, as_path("ram://home/memory").name
    ('memory', 'memory')
    """
    text = os.fspath(path)
    if "://" in text:
        return RemotePath(text)
    if isinstance(path, pathlib.PurePath) and _SHORTENED.match(text):
        raise ValueError(
            f"{text!r} was a remote path before pathlib.Path took it for a "
            "local one. Pass it as a string."
        )
    return pathlib.Path(text)


class RemotePath(os.PathLike):
    """A path of `tf.io.gfile`, with a few methods of `pathlib.Path`.

    A file is replaced by writing another one and renaming it. Where that is
    one operation, a reader sees the old file or the new one; an object store
    copies the object, which it then shows as a whole. On a file system that
    does neither, a reader may for a moment find no file. Nothing is
    flushed further than the file system does by itself, and folders cannot
    be replaced at once.

    Whatever goes wrong is an `OSError` with the path in it, as it is for a
    local file.

    Args:
        path: `str` or path-like with a scheme.

    >>> path = RemotePath("ram://letters") / "a.txt"
    >>> path.write_bytes(b"hello")
    >>> path.read_text(), path.exists(), str(path)
    ('hello', True, 'ram://letters/a.txt')
    """

    def __init__(self, path):
        scheme, rest = os.fspath(path).split("://", 1)
        self._text = f"{scheme}://{rest.rstrip('/')}"

    def __fspath__(self):
        return self._text

    def __str__(self):
        return self._text

    def __repr__(self):
        return f"RemotePath({self._text!r})"

    def __eq__(self, other):
        return isinstance(other, RemotePath) and self._text == other._text

    def __hash__(self):
        return hash(self._text)

    def __truediv__(self, name):
        return RemotePath(f"{self._text}/{name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._text.rpartition("/")[-1]

    @property
    def stem(self) -> str:
        """The last part of the path without its suffix."""
        return pathlib.PurePosixPath(self.name).stem

    @property
    def parent(self) -> "RemotePath":
        """The folder that holds this path."""
        return RemotePath(self._text.rpartition("/")[0] + "/")

    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        with _os_errors(self):
            return tf.io.gfile.exists(self._text)

    def is_dir(self) -> bool:
        """Whether there is such a folder."""
        with _os_errors(self):
            return tf.io.gfile.isdir(self._text)

    def is_file(self) -> bool:
        """Whether there is such a file."""
        return self.exists() and not self.is_dir()

    def glob(self, pattern: str) -> list["RemotePath"]:
        """Returns what is in the folder under a name that fits a pattern."""
        if not self.is_dir():
            return []
        with _os_errors(self):
            names = [n.rstrip("/") for n in tf.io.gfile.listdir(self._text)]
        return [self / name for name in fnmatch.filter(names, pattern)]

    @contextlib.contextmanager
    def open(self, mode: str = "rb"):
        """Opens the file to read."""
        with _os_errors(self), tf.io.gfile.GFile(self._text, mode) as file:
            yield file

    def read_bytes(self) -> bytes:
        """Returns the content of the file."""
        with self.open() as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """Returns the content of the file as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Writes or replaces the file; missing folders are made."""

        def write(temporary):
            with tf.io.gfile.GFile(temporary, "wb") as file:
                file.write(content)

        self._replace(write)

    def copy_from(self, local) -> None:
        """Writes or replaces the file by a copy of a local one."""
        self._replace(lambda path: tf.io.gfile.copy(os.fspath(local), path))

    def copy_to(self, local) -> None:
        """Writes or replaces a local file by a copy of this one."""
        with _os_errors(self):
            tf.io.gfile.copy(self._text, os.fspath(local), overwrite=True)

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the file."""
        try:
            with _os_errors(self):
                tf.io.gfile.remove(self._text)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _replace(self, write) -> None:
        temporary = str(_temporary_sibling(self))
        with _os_errors(self):
            tf.io.gfile.makedirs(str(self.parent))
            try:
                write(temporary)
                tf.io.gfile.rename(temporary, self._text, overwrite=True)
            except BaseException:
                with contextlib.suppress(tf.errors.OpError):
                    tf.io.gfile.remove(temporary)
                raise


@contextlib.contextmanager
def atomic_write(path, mode="wb"):
    """Opens `path` for writing; it changes only when the body has finished.

    The body writes to a hidden temporary file in the same folder, which is
    flushed to disk and then renamed to `path`. Whoever reads `path` sees the
    whole old file or the whole new one. If the body raises, the temporary
    file is removed and `path` is as it was. A process that is killed may
    leave the temporary file (`.<name>.<random>.tmp`), never a partial `path`.

    Missing parent folders are made, as what is written here is often the
    last thing a long training does. A symbolic link is followed.

    What is written to a remote path is kept in memory, and sent when the body
    has finished; `RemotePath` has what can be said of it then.

    Args:
        path: `str` or path-like, the file to write.
        mode: `"wb"` for bytes or `"w"` for UTF-8 text.

    Yields:
        The open temporary file.

    Raises:
        ValueError: If `mode` is neither `"wb"` nor `"w"`.
        IsADirectoryError: If `path` is a folder.

    Example:

    >>> import tempfile
    >>> home = pathlib.Path(tempfile.mkdtemp())
    >>> with atomic_write(home / "greeting.txt", "w") as file:
    ...     _ = file.write("hello")
    >>> (home / "greeting.txt").read_text()
    'hello'
    """
    if mode not in ("wb", "w"):
        raise ValueError(
            f"mode={mode!r} cannot be written atomically. Use 'wb' for bytes "
            "or 'w' for text."
        )
    is_remote = isinstance(as_path(path), RemotePath)
    target = as_path(path) if is_remote else _resolved(path)
    if target.is_dir():
        raise IsADirectoryError(
            f"{str(path)!r} is a folder, expected the path of a file."
        )
    if is_remote:
        buffer = io.BytesIO() if mode == "wb" else io.StringIO()
        yield buffer
        content = buffer.getvalue()
        target.write_bytes(content.encode() if mode == "w" else content)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_sibling(target)
    try:
        encoding = "utf-8" if mode == "w" else None
        with open(temporary, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(target.parent)


@contextlib.contextmanager
def atomic_directory(path):
    """Yields an empty folder that becomes `path` when the body has finished.

    The body fills a hidden temporary folder beside `path`. Then an older
    `path` is renamed to `path + ".old"`, the new folder to `path`, and the
    old one is removed. At every moment `path` or, if there is no `path`,
    `path + ".old"` is a whole folder; `recover_directory` finds it. If the
    body raises, the temporary folder is removed and `path` is as it was.

    Missing parent folders are made. A symbolic link is followed. Two
    processes must not write the same `path` at the same time.

    Args:
        path: `str` or path-like, the folder to write or to replace.

    Yields:
        The `pathlib.Path` of the temporary folder.

    Raises:
        ValueError: If `path` is remote.
        NotADirectoryError: If `path` is a file.
        OSError: If `path` is a mount point, which cannot be renamed.

    Example:

    >>> import tempfile
    >>> home = pathlib.Path(tempfile.mkdtemp())
    >>> with atomic_directory(home / "letters") as folder:
    ...     _ = (folder / "a.txt").write_text("a")
    >>> (home / "letters" / "a.txt").read_text()
    'a'
    """
    target = _resolved(path)
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(
            f"{str(path)!r} is a file, expected a folder or a new path. "
            "Choose another path or remove the file."
        )
    if os.path.ismount(target):
        raise OSError(
            f"{str(path)!r} is a mount point, which cannot be replaced as a "
            "whole. Choose a folder inside it."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_sibling(target)
    temporary.mkdir()
    try:
        yield temporary
        sync_tree(temporary)
        _swap_in(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def recover_directory(path):
    """Returns `path`, after undoing an interrupted `atomic_directory`.

    If a process was killed between the two renames of `atomic_directory`,
    the last whole folder is `path + ".old"`; it is renamed back. Call this
    before reading a folder that `atomic_directory` wrote.

    Args:
        path: `str` or path-like, the folder about to be read.

    Returns:
        `pathlib.Path(path)`, whether or not it exists.

    Example:

    >>> import tempfile
    >>> home = pathlib.Path(tempfile.mkdtemp())
    >>> (home / "letters.old").mkdir()
    >>> recover_directory(home / "letters").is_dir()
    True
    """
    target = _resolved(path)
    old = _old(target)
    if old.exists() and not target.exists():
        old.rename(target)
        sync(target.parent)
    return pathlib.Path(path)


def _swap_in(temporary, target):
    """Renames `temporary` to `target`, keeping the older folder until then."""
    old = _old(target)
    if target.exists():
        _remove_whole(old)
        target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        recover_directory(target)
        raise
    sync(target.parent)
    _remove_whole(old)


def _remove_whole(folder):
    """Removes `folder` such that its name never holds a half-removed one."""
    if folder.exists():
        doomed = _temporary_sibling(folder)
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _resolved(path):
    path = as_path(path)
    if isinstance(path, RemotePath):
        raise ValueError(
            f"{str(path)!r} is not a local path. Folders are replaced by a "
            "rename, which other file systems cannot do at once. Write to a "
            "local folder, then copy it."
        )
    return pathlib.Path(os.path.realpath(path))


def _old(target):
    return target.with_name(target.name + ".old")


def _temporary_sibling(target):
    # Not `tempfile`: its files and folders are unreadable to other users,
    # also once renamed, whatever the umask says.
    return target.parent / f".{target.name}.{uuid.uuid4().hex[:12]}.tmp"


@contextlib.contextmanager
def _os_errors(path):
    """Raises the errors of TensorFlow's file systems as those of Python's."""
    try:
        yield
    except tf.errors.OpError as error:
        number = _ERRNO.get(type(error), errno.EIO)
        reason = error.message or os.strerror(number)
        raise OSError(number, reason, str(path)) from error


# What pathlib makes of `gs://`; a drive of Windows has one letter.
_SHORTENED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_ERRNO = {
    tf.errors.NotFoundError: errno.ENOENT,
    tf.errors.AlreadyExistsError: errno.EEXIST,
    tf.errors.PermissionDeniedError: errno.EACCES,
    tf.errors.UnauthenticatedError: errno.EACCES,
    tf.errors.ResourceExhaustedError: errno.ENOSPC,
    tf.errors.UnimplementedError: errno.ENOTSUP,
}


def sync_tree(folder):
    """Flushes a folder, and all that is in it, to disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            sync(os.path.join(parent, name))
        sync(parent)


def sync(path):
    """Flushes a file, or the names in a folder, to disk."""
    if os.name != "posix":  # Windows neither opens nor syncs a folder.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
