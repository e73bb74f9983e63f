"""Writing files and folders so that a killed process leaves a whole one."""

import contextlib
import os
import pathlib
import shutil
import uuid


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
    target = _resolved(path)
    if target.is_dir():
        raise IsADirectoryError(
            f"{str(path)!r} is a folder, expected the path of a file."
        )
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
    return pathlib.Path(os.path.realpath(path))


def _old(target):
    return target.with_name(target.name + ".old")


def _temporary_sibling(target):
    # Not `tempfile`: its files and folders are unreadable to other users,
    # also once renamed, whatever the umask says.
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")


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
