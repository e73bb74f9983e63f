"""Files in the temporary folder, for what takes more RAM than it may."""

import contextlib
import tempfile

from keras_incremental.files import disk_errors


@contextlib.contextmanager
def temporary_file():
    """Yields an open file without a name, for the body to write and to map.

    It is gone once it is neither open nor mapped, however the process ends. An
    error of the disk names the temporary folder, and the way out.
    """
    folder = tempfile.gettempdir()
    advice = "Set the environment variable TMPDIR to a folder with room."
    with disk_errors(folder, folder, advice), tempfile.TemporaryFile() as file:
        yield file
