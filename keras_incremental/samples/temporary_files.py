"""Files in the temporary folder, for what takes more RAM than it may."""

import contextlib
import errno
import os
import shutil

from keras_incremental.files import OwnedFolder, disk_errors


@contextlib.contextmanager
def filling(folder: OwnedFolder):
    """Deletes a temporary folder if the body, which fills it, fails.

    Whoever keeps the error would keep the disk full. One of the disk names the
    folder, and the way out.
    """
    advice = "Set the environment variable TMPDIR to a folder with room."
    try:
        with disk_errors(folder.path, advice=advice):
            yield
    except BaseException:
        folder.close()
        raise


def check_room(folder: OwnedFolder, size: int) -> None:
    """Refuses to begin what the disk has no room for.

    Raises:
        OSError: If `size` bytes are more than there are free.
    """
    if size > shutil.disk_usage(folder.path).free:
        raise OSError(errno.ENOSPC, f"{size} bytes are needed")


def reserve(path, size: int) -> None:
    """Makes a file that has room on the disk for all of its bytes.

    Where a file without it is mapped, a full disk ends the process.
    """
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
