"""Several runs in one picture."""

import collections
import pathlib

from keras_incremental.reports.accuracy_curve import plot_accuracy
from keras_incremental.reports.results import read_results


def load_runs(output_dirs):
    """Reads the results of several runs and gives each a name of its own.

    A run is named after its method. Runs that share it are told apart by
    data set, seed and folder, by as many of them as it takes.

    Args:
        output_dirs: Output folders of runs, `str` or path-like.

    Returns:
        Dict from name to results, in the given order.

    Raises:
        ValueError: If there is no folder, or its results are not a run's.
        FileNotFoundError: If a folder or its results are missing.
    """
    folders = [pathlib.Path(path) for path in output_dirs]
    if not folders:
        raise ValueError("output_dirs is empty, expected at least one folder.")
    runs = [read_results(folder) for folder in folders]
    names = [str(run["method"]) for run in runs]
    names = _tell_apart(names, [str(run["dataset"]) for run in runs])
    names = _tell_apart(names, [f"seed {run['seed']}" for run in runs])
    paths = _short_paths([folder.resolve() for folder in folders])
    names = _tell_apart(names, paths)
    return dict(zip(names, runs, strict=True))


def compare(output_dirs, path):
    """Writes one picture with the accuracy curve of each run.

    Args:
        output_dirs: Output folders of runs, `str` or path-like.
        path: `str` or path-like; `.png`, `.svg` or `.pdf`.

    Returns:
        The runs, as `load_runs` returns them.

    Raises:
        ValueError: As `load_runs`, or for another kind of file.
        FileNotFoundError: As `load_runs`.
    """
    runs = load_runs(output_dirs)
    plot_accuracy(runs, path)
    return runs


def _tell_apart(names, details):
    """Appends its detail to each name whose owners differ in it."""
    details_of = collections.defaultdict(set)
    for name, detail in zip(names, details, strict=True):
        details_of[name].add(detail)
    return [
        f"{name}, {detail}" if len(details_of[name]) > 1 else name
        for name, detail in zip(names, details, strict=True)
    ]


def _short_paths(folders):
    """The shortest ends of the paths that are all different."""
    for length in range(1, max(len(folder.parts) for folder in folders)):
        ends = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(ends)) == len(ends):
            return ends
    return [str(folder) for folder in folders]
