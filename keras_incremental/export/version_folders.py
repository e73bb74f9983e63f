"""The folder of a served model: numbered versions, each there as a whole.

TensorFlow Serving polls such a folder, takes every name that reads as a number
for a version, and loads the highest. Whatever is not finished, or about to be
deleted, is therefore kept in a hidden folder, which goes with its process.
"""

import contextlib
import errno
import os
import pathlib
import re

from keras_incremental.files import OwnedFolder, sync, sync_tree

# In every version written here: only folders that hold it are ever deleted.
MARKER = pathlib.PurePath("assets.extra", "keras_incremental.json")

_VERSION = re.compile(r"[1-9][0-9]*", re.ASCII)
# The server's parser also takes these for numbers.
_NUMBER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
_HIGHEST = 2**63 - 1
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


def checked_base(base):
    """Returns the folder of versions as a path, which need not exist yet.

    Raises:
        ValueError: if it is empty, not local, or a version itself.
        NotADirectoryError: if it is a file.
    """
    text = os.fspath(base)
    if not text:
        raise ValueError("base is empty; expected a folder, 'serving/my_model'")
    if "://" in text:
        raise ValueError(
            f"base={text!r} is not a local folder. A version is published by "
            "renaming its folder, which other file systems cannot do at once. "
            "Publish locally, then copy the version's files, saved_model.pb "
            "last."
        )
    path = pathlib.Path(text)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, "base is a file, expected a folder of versions", text
        )
    if (path / "saved_model.pb").exists():
        raise ValueError(
            f"base={text!r} is a SavedModel itself; expected the folder that "
            f"holds the versions, probably {str(path.parent)!r}."
        )
    return path


def add(base, write):
    """Adds the next version: higher than all that a server would see.

    Args:
        base: the folder; it is made if it is missing.
        write: fills a folder, whose path it gets.

    Returns:
        The version's path.

    Raises:
        OSError: and whatever `write` raises; then nothing is added.
    """
    with contextlib.closing(OwnedFolder(base, "version")) as folder:
        temporary = folder.path / "version"
        temporary.mkdir()
        write(temporary)
        sync_tree(temporary)
        version = _rename_to_next(temporary, base)
    sync(base)
    return version


def prune(base, keep):
    """Deletes all but the newest `keep` of the versions written here."""
    with contextlib.closing(OwnedFolder(base, "old")) as folder:
        for version in written_here(base)[:-keep]:
            # Another process may be deleting it as well.
            with contextlib.suppress(FileNotFoundError):
                version.rename(folder.path / version.name)


def _rename_to_next(temporary, base):
    while True:
        version = base / str(_next_number(base))
        try:
            os.rename(temporary, version)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            # Another process has just published it: take the next number.
        else:
            return version


def _next_number(base):
    numbers = [
        int(name) for name in os.listdir(base) if _NUMBER.fullmatch(name)
    ]
    highest = max((n for n in numbers if n <= _HIGHEST), default=0)
    if highest == _HIGHEST:
        raise OSError(
            f"{str(base / str(highest))!r} has the highest number a version "
            "can have; rename it"
        )
    return max(highest, 0) + 1


def written_here(base):
    """Returns the versions that hold the marker, oldest first."""
    versions = [
        path
        for path in base.glob("*")  # none, if there is no such folder
        if _VERSION.fullmatch(path.name) and (path / MARKER).is_file()
    ]
    return sorted(versions, key=lambda path: int(path.name))
