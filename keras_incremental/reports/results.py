"""`results.json`, the record of one run."""

import functools
import hashlib
import json
import math
import pathlib
import re
from collections.abc import Mapping

import numpy as np

from keras_incremental._types import PathLike
from keras_incremental.archives import parsed
from keras_incremental.files import atomic_write

FILE_NAME = "results.json"
"""The name of the file of results in an output folder."""
# It differs with the times, so its name ends as theirs do.
CHECKSUM = "sha256_with_seconds"

# What tables and pictures are made from.
_NUMBER = int | float | None
_REQUIRED_KEYS = {
    "dataset": str,
    "method": str,
    "seed": int,
    "tasks": list,
    "accuracy_matrix": list,
    "average_incremental_accuracy": _NUMBER,
    "final_accuracy": _NUMBER,
    "forgetting": _NUMBER,
    "backward_transfer": _NUMBER,
}
_REQUIRED_TASK_KEYS = {"seen_classes": int, "accuracy": _NUMBER}


def with_checksum(results: Mapping) -> dict:
    """Returns results with a checksum, which `read_results` looks at.

    It is a SHA-256 of all that `write_results` writes of them, so two runs that
    differ in their times alone differ in it: leave it out where you compare
    runs, with the keys that end in `_seconds`.

    Args:
        results: As for `write_results`.

    Returns:
        A `dict` of the same items and `sha256_with_seconds`.

    Example:

    >>> with_checksum({"seed": 0})["sha256_with_seconds"][:8]
    'de7d7744'
    """
    content = {key: results[key] for key in results if key != CHECKSUM}
    return {**content, CHECKSUM: _checksum(_plain(content, "results"))}


def _was_checksum(key, value):
    return isinstance(value, str) and (
        key.startswith("sha256") or bool(re.search("[0-9a-f]{24}", value))
    )


def _checksum(content):
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_results(results: Mapping, output_dir: PathLike) -> pathlib.Path:
    """Writes `results` to `output_dir/results.json`, whole or not at all.

    Numbers that JSON does not have (NaN, infinity) become `null`. A line holds
    one key, or one item of a list of lists or dicts.

    Args:
        results: Nested dicts, lists, tuples, NumPy arrays and scalars,
            strings, paths, numbers, booleans and `None`.
        output_dir: `str` or path-like; made if missing.

    Returns:
        The `pathlib.Path` of the file.

    Raises:
        TypeError: If a value is of another type; its key is named.

    Example:

    >>> import tempfile
    >>> home = pathlib.Path(tempfile.mkdtemp())
    >>> print(write_results({"seed": 0, "order": [3, 1]}, home).read_text())
    {
     "seed": 0,
     "order": [3, 1]
    }
    <BLANKLINE>
    """
    return write_json(results, pathlib.Path(output_dir) / FILE_NAME)


def write_json(content: Mapping, path: PathLike) -> pathlib.Path:
    """Writes `content` as `write_results` does, to a file of any name."""
    path = pathlib.Path(path)
    text = _text(_plain(content, path.stem)) + "\n"
    with atomic_write(path, "w") as file:
        file.write(text)
    return path


def read_results(output_dir: PathLike) -> dict:
    """Reads what `write_results` wrote.

    Args:
        output_dir: `str` or path-like, the output folder of a run.

    Returns:
        The results as plain dicts, lists, numbers and strings; `None` where
        NaN was written.

    Raises:
        FileNotFoundError: If there is no `results.json` in it.
        ValueError: If the file is not JSON, lacks a key of a run's results, or
            is not what was written.
    """
    path = pathlib.Path(output_dir) / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(output_dir)!r} is not the output folder of a run: it has no "
            f"{FILE_NAME}. Pass the --output_dir of a run that has finished."
        )
    try:
        results = parsed(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} is not valid JSON ({error}). Run again into "
            "another folder, or restore the file."
        ) from error
    _check_complete(results, path)
    _check_unchanged(results, path)
    return results


def _check_complete(results, path):
    """Checks that `results` has what tables and pictures are made from."""
    try:
        for key, types in _REQUIRED_KEYS.items():
            _check_type(key, results[key], types)
        for row in results["accuracy_matrix"]:
            _check_type("accuracy_matrix", row, list)
            for value in row:
                _check_type("accuracy_matrix", value, _NUMBER)
        for task in results["tasks"] or [{}]:
            for key, types in _REQUIRED_TASK_KEYS.items():
                _check_type(key, task[key], types)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{str(path)!r} is not the results of a run, or of another "
            f"version: {error!r}. Run again into another folder."
        ) from error


def _check_type(key, value, types):
    if not isinstance(value, types) or isinstance(value, bool):
        raise TypeError(f"{key!r} is of type {type(value).__name__}")


def _check_unchanged(results, path):
    """Compares `results` with their checksum, if they have one."""
    content = {key: results[key] for key in results if key != CHECKSUM}
    # The damage may be in the checksum's own name.
    has_stray = any(_was_checksum(*item) for item in content.items())
    if has_stray or results.get(CHECKSUM) not in (None, _checksum(content)):
        raise ValueError(
            f"{str(path)!r} is damaged, or was edited: it is not what its "
            f"{CHECKSUM!r} was computed from. Restore the file, or remove that "
            "key to read it as it is."
        )


def _plain(value, where):
    """`value` of JSON types only."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {
            str(key): _plain(item, f"{where}[{key!r}]")
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            _plain(item, f"{where}[{index}]")
            for index, item in enumerate(value)
        ]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, pathlib.PurePath):
        return str(value)
    raise TypeError(
        f"{where} is {value!r} of type {type(value).__name__}, which JSON "
        "cannot hold. Convert it to numbers, strings, lists or dicts."
    )


def _text(results):
    """JSON with one key a line, and one item of a list of lists or dicts."""
    lines = [
        f" {json.dumps(key)}: {_items(value)}" for key, value in results.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}"


def _items(value):
    dump = functools.partial(json.dumps, ensure_ascii=False)
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return "[\n  " + ",\n  ".join(map(dump, value)) + "\n ]"
    return dump(value)
