"""The folder a run writes into."""

import tempfile
from typing import Any

from keras_incremental._types import PathLike
from keras_incremental.files import as_path, is_remote, make_folder

ARTEFACTS = (
    "results.json",
    "accuracy.png",
    "before_after.png",
    "confusion.png",
    "model.keras",
    "memory",
    "tensorboard",
    "search.json",
)


def claim_output_dir(output_dir: PathLike, resuming: bool = False) -> Any:
    """Makes `output_dir`, or checks that it holds no other run's results.

    Call it before training: a mistyped or used folder is then an error at
    once, not after an afternoon. Files other than a run's are left alone.

    Args:
        output_dir: `str` or path-like; missing parent folders are made.
        resuming: Whether it may hold the results of the run that goes on.

    Returns:
        `pathlib.Path(output_dir)`, a folder that can be written.

    Raises:
        ValueError: If it is not local: logs and pictures are written there.
        FileExistsError: If it holds a run's results, a picture, a model, a
            memory, logs or a sharing search (`ARTEFACTS`).
        OSError: If it cannot be made or written.

    Example:

    >>> import pathlib, tempfile
    >>> home = pathlib.Path(tempfile.mkdtemp())
    >>> claim_output_dir(home / "eeil").is_dir()
    True
    """
    folder = as_path(output_dir)
    if is_remote(folder):
        raise ValueError(
            f"The output folder {str(folder)!r} is not local. Write to a local "
            "folder, then copy it; models, memories and backups alone may be "
            "elsewhere."
        )
    try:
        make_folder(folder)
        found = [name for name in ARTEFACTS if (folder / name).exists()]
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"The output folder {str(folder)!r} cannot be written "
            f"({error.strerror}). Choose another --output_dir, or change what "
            "is in the way."
        ) from error
    if found and not resuming:
        raise FileExistsError(
            f"The output folder {str(folder)!r} already holds "
            f"{', '.join(found)} of another run. Choose another --output_dir "
            "or remove the folder."
        )
    return folder
