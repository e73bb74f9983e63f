"""Runs of several methods and seeds in one table."""

import statistics
from collections.abc import Mapping, Sequence

# What a table has of each method: its heading, and its key in the results.
ACCURACIES = {
    "average": "average_incremental_accuracy",
    "after first": "average_incremental_accuracy_after_first",
    "final": "final_accuracy",
    "forgetting": "forgetting",
}
_BYTES_OF_A_PARAMETER = 4


def spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Returns mean and sample standard deviation of the seeds of a method.

    Args:
        values: One number a seed; `None` where it is not known.

    Returns:
        `(mean, deviation)`; the deviation of a single seed is `None`, and so
        are both where a value is not known.

    Example:

    >>> spread([0.5, 0.75, 1.0])
    (0.75, 0.25)
    """
    if None in values:
        return None, None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return statistics.mean(values), deviation


def percent(values):
    """Returns `spread(values)` as text, in %.

    Example:

    >>> percent([0.5, 0.75, 1.0]), percent([0.5]), percent([None])
    ('75.0 ± 25.0', '50.0', '-')
    """
    mean, deviation = spread(values)
    if mean is None:
        return "-"
    after = "" if deviation is None else f" ± {100 * deviation:.1f}"
    return f"{100 * mean:.1f}{after}"


def describe(runs: Sequence[Mapping]) -> str:
    """Returns data, tasks, memory and seeds of runs in words.

    Args:
        runs: List of the results of runs, of all methods and seeds. Exemplars
            and seeds may be missing.

    Example:

    >>> tasks = [{"seen_classes": n, "exemplars": 9} for n in (2, 4)]
    >>> describe([{"dataset": "digits", "seed": 0, "tasks": tasks}])
    'digits: 4 classes in 2 tasks, 9 exemplars'
    """
    last = [run["tasks"][-1] for run in runs]
    classes = _range(task["seen_classes"] for task in last)
    tasks = _range(len(run["tasks"]) for run in runs)
    parts = [f"{classes} classes in {tasks} task{'s' * (tasks != '1')}"]
    if memories := {task.get("exemplars", 0) for task in last} - {0}:
        parts.append(f"{_range(memories)} exemplars")
    seeds = {run.get("seed") for run in runs}
    if len(seeds) > 1:
        parts.append(f"mean and deviation of {len(seeds)} seeds")
    data = ", ".join(sorted({run["dataset"] for run in runs}))
    return f"{data}: {', '.join(parts)}"


def _range(counts):
    """Returns the least and the greatest of counts as text, if they differ."""
    counts = sorted(counts)
    return " to ".join(dict.fromkeys(f"{n:,}" for n in (counts[0], counts[-1])))


def summarize(runs: Mapping[str, Sequence[Mapping]]) -> list[dict]:
    """Returns a row of figures for each method, over its seeds.

    Args:
        runs: Dict from the name of a method to the results of its runs, one a
            seed (`read_results`).

    Returns:
        List of dicts of JSON types: `method`, `seeds`, `[mean, deviation]`
        under each key of accuracy and forgetting, and the means `exemplars`,
        `seconds` and `bytes`: 4 a parameter of the final network, the
        exemplars as they are stored, and the sums of a closed form; `None`
        where all images are kept.
    """
    return [
        {
            "method": name,
            "seeds": [results["seed"] for results in group],
            **{
                key: list(spread([results.get(key) for results in group]))
                for key in ACCURACIES.values()
            },
            "exemplars": spread([_exemplars(results) for results in group])[0],
            "bytes": spread([_bytes(results) for results in group])[0],
            "seconds": spread([_seconds(results) for results in group])[0],
        }
        for name, group in runs.items()
    ]


def _exemplars(results):
    return results["tasks"][-1]["exemplars"]


def _bytes(results):
    parts = [results.get("parameters"), results.get("exemplar_bytes")]
    if None in parts:
        return None
    kept = results.get("kept_bytes", 0)
    return _BYTES_OF_A_PARAMETER * parts[0] + parts[1] + kept


def _seconds(results):
    return sum(
        task["train_seconds"] + task["overhead_seconds"]
        for task in results["tasks"]
    )


def markdown(runs: Mapping[str, Sequence[Mapping]]) -> str:
    """Returns the table of `summarize` as Markdown, accuracies in %.

    Args:
        runs: As of `summarize`.
    """
    heads = ["method", "seeds", *ACCURACIES, "exemplars", "MB", "seconds"]
    lines = [_line(heads), _line(["---"] * 2 + ["---:"] * (len(heads) - 2))]
    for row, group in zip(summarize(runs), runs.values(), strict=True):
        size = row["bytes"]
        cells = [
            row["method"],
            ", ".join(map(str, row["seeds"])),
            *(
                percent([results.get(key) for results in group])
                for key in ACCURACIES.values()
            ),
            f"{row['exemplars']:.0f}",
            "-" if size is None else f"{size / 1e6:.2f}",
            f"{row['seconds']:.0f}",
        ]
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells):
    return f"| {' | '.join(cells)} |"
