"""Compares runs: prints a table and draws their accuracy curves.

python examples/compare.py --output=compare.png out/eeil out/finetune
"""

import statistics

from absl import app, flags

from keras_incremental import reports

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "output", "compare.png", "The picture to write: .png, .svg or .pdf."
)

COLUMNS = {
    "average": "average_incremental_accuracy",
    "after first": "average_incremental_accuracy_after_first",
    "final": "final_accuracy",
    "forgetting": "forgetting",
}


def table(runs):
    """Returns the lines of a table with one run a line, numbers in %."""
    rows = [("name", "method", "seed", *COLUMNS)]
    for name, results in runs.items():
        numbers = [percent(results.get(key)) for key in COLUMNS.values()]
        rows.append(
            (name, str(results["method"]), str(results["seed"]), *numbers)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(align(row, widths)).rstrip() for row in rows]


def spread(runs):
    """Returns a line for each setting that was run with several seeds.

    The mean over seeds, and the sample standard deviation.
    """
    groups = {}
    for results in runs.values():
        settings = {
            k: v for k, v in results.get("flags", {}).items() if k != "seed"
        }
        key = (results["dataset"], results["method"], str(settings))
        groups.setdefault(key, []).append(results)
    lines = []
    for (dataset, method, _), group in groups.items():
        if len(group) > 1:
            columns = [
                f"{name} {mean_and_deviation([r.get(key) for r in group])}"
                for name, key in COLUMNS.items()
            ]
            lines.append(
                f"{method} on {dataset}, {len(group)} seeds: "
                + ", ".join(columns)
            )
    return lines


def mean_and_deviation(values):
    """Returns fractions as `mean ± deviation` in %, or a dash."""
    if None in values:
        return "-"
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    return f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def percent(value):
    """Returns a fraction in %, or a dash if it is not known."""
    return "-" if value is None else f"{100 * value:.1f}"


def align(row, widths):
    """Pads the texts on the right, the numbers on the left."""
    texts, numbers = row[:2], row[2:]
    yield from map(str.ljust, texts, widths[:2])
    yield from map(str.rjust, numbers, widths[2:])


def main(argv):
    """Compares the runs in the folders given; absl calls it."""
    output_dirs = argv[1:]
    if not output_dirs:
        raise app.UsageError(
            "No run given. Pass the --output_dir of one or more runs, as in: "
            "compare.py --output=compare.png out/eeil out/finetune"
        )
    try:
        runs = reports.compare(output_dirs, FLAGS.output)
    except (OSError, ValueError) as error:
        raise app.UsageError(str(error)) from error
    print("\n".join([*table(runs), *spread(runs)]))
    print(f"Accuracies in %. Picture: {FLAGS.output}")


if __name__ == "__main__":
    app.run(main)
