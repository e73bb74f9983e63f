"""`results.json`, the record of one run."""

import hashlib
import json
import math
import pathlib

import numpy as np

from keras_incremental.files import atomic_write

FILE_NAME = "results.json"
# It differs with the times, so its name ends as theirs do.
CHECKSUM = "sha256_with_seconds"

# The order in which keys are written; any other key follows by name.
_RESULT_KEYS = (
    "dataset",
    "method",
    "seed",
    "class_order",
    "class_names",
    "flags",
    "tasks",
    "accuracy_matrix",
    "average_incremental_accuracy",
    "average_incremental_accuracy_after_first",
    "final_accuracy",
    "forgetting",
    "backward_transfer",
    "train_function_traces",
    "confusion_matrix",
)
_TASK_KEYS = (
    "task",
    "classes",
    "seen_classes",
    "accuracy",
    "top5_accuracy",
    "per_task_accuracy",
    "exemplars",
    "train_seconds",
    "overhead_seconds",
)
_REQUIRED_KEYS = (
    "dataset",
    "method",
    "seed",
    "tasks",
    "accuracy_matrix",
    "average_incremental_accuracy",
    "final_accuracy",
    "forgetting",
    "backward_transfer",
)
_REQUIRED_TASK_KEYS = ("seen_classes", "accuracy")


def with_checksum(results):
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


def _checksum(content):
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_results(results, output_dir):
    """Writes `results` to `output_dir/results.json`, whole or not at all.

    Equal results give equal bytes: the keys of the contract come first, in
    its order, then all others by name. Numbers that JSON does not have (NaN,
    infinity) become `null`. A list of plain values takes one line.

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
    text = _text(_plain(results, "results", _RESULT_KEYS)) + "\n"
    path = pathlib.Path(output_dir) / FILE_NAME
    with atomic_write(path, "w") as file:
        file.write(text)
    return path


def read_results(output_dir):
    """Reads what `write_results` wrote.

    Args:
        output_dir: `str` or path-like, the output folder of a run.

    Returns:
        The results as plain dicts, lists, numbers and strings; `None` where
        NaN was written.

    Raises:
        FileNotFoundError: If the folder, or `results.json` in it, is missing.
        NotADirectoryError: If `output_dir` is a file.
        ValueError: If the file is not JSON, lacks a key of a run's results, or
            is not what was written.
    """
    folder = pathlib.Path(output_dir)
    path = folder / FILE_NAME
    if folder.is_file():
        raise NotADirectoryError(
            f"{str(folder)!r} is a file, expected the output folder of a run: "
            f"the folder that holds {FILE_NAME}."
        )
    if not path.is_file():
        missing = f"no {FILE_NAME}" if folder.is_dir() else "no such folder"
        raise FileNotFoundError(
            f"{str(folder)!r} is not the output folder of a run: {missing}. "
            "Pass the --output_dir of a run that has finished."
        )
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
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
    if not isinstance(results, dict):
        raise ValueError(
            f"{str(path)!r} holds a {type(results).__name__}, expected an "
            "object with the results of a run."
        )
    _check_keys(results, _REQUIRED_KEYS, f"{str(path)!r}")
    tasks = results["tasks"]
    if not isinstance(tasks, list) or not tasks:
        raise ValueError(
            f"{str(path)!r}: 'tasks' is {tasks!r}, expected a list with one "
            "object for each task."
        )
    for index, task in enumerate(tasks):
        where = f"{str(path)!r}, tasks[{index}],"
        if not isinstance(task, dict):
            raise ValueError(f"{where} is {task!r}, expected an object.")
        _check_keys(task, _REQUIRED_TASK_KEYS, where)


def _check_unchanged(results, path):
    """Compares `results` with their checksum, if they have one."""
    content = {key: results[key] for key in results if key != CHECKSUM}
    if results.get(CHECKSUM) not in (None, _checksum(content)):
        raise ValueError(
            f"{str(path)!r} is damaged, or was edited: it is not what its "
            f"{CHECKSUM!r} was computed from. Restore the file, or remove that "
            "key to read it as it is."
        )


def _check_keys(mapping, required, where):
    missing = [key for key in required if key not in mapping]
    if missing:
        raise ValueError(
            f"{where} lacks {', '.join(map(repr, missing))}, so it is not "
            "the results of a run, or of another version. Run again into "
            "another folder."
        )


def _plain(value, where, first_keys=()):
    """`value` of JSON types only, its keys in a stable order."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        named = {str(key): item for key, item in value.items()}
        known = [key for key in first_keys if key in named]
        others = sorted(named.keys() - set(known))
        return {
            key: _plain(
                named[key],
                f"{where}[{key!r}]",
                _TASK_KEYS if key == "tasks" else (),
            )
            for key in known + others
        }
    if isinstance(value, list | tuple):
        return [
            _plain(item, f"{where}[{index}]", first_keys)
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


def _text(value, depth=0):
    """JSON with an indent of 1, and lists of plain values on one line."""
    if isinstance(value, dict) and value:
        lines = [
            f"{json.dumps(key, ensure_ascii=False)}: {_text(item, depth + 1)}"
            for key, item in value.items()
        ]
    elif isinstance(value, list) and any(
        isinstance(item, dict | list) for item in value
    ):
        lines = [_text(item, depth + 1) for item in value]
    else:
        return json.dumps(value, ensure_ascii=False)
    first, last = "{}" if isinstance(value, dict) else "[]"
    separator = "\n" + " " * (depth + 1)
    body = f",{separator}".join(lines)
    return f"{first}{separator}{body}\n{' ' * depth}{last}"
