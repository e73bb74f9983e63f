"""Damaged `results.json`: the results that were written, or an error."""

import functools

import numpy as np
from damage import count_reads, damaged

from keras_incremental import reports

SHORT = 4
LONG = 20
_COPIES = 5  # a round


def results(seed=0):
    """Returns small results of a run of two tasks."""
    random = np.random.default_rng(seed)
    matrix = random.uniform(size=(2, 2)).round(6).tolist()
    return reports.with_checksum(
        {
            "dataset": "digits",
            "method": "eeil",
            "seed": seed,
            "tasks": [
                {"seen_classes": 2, "accuracy": matrix[0][0]},
                {"seen_classes": 4, "accuracy": matrix[1][1]},
            ],
            "accuracy_matrix": matrix,
            "average_incremental_accuracy": matrix[0][0],
            "final_accuracy": matrix[1][1],
            "forgetting": 0.25,
            "backward_transfer": -0.25,
        }
    )


def attack(rounds, seed, folder):
    """Reads damaged copies."""
    written = results(seed)
    path = reports.write_results(written, folder)
    whole = path.read_bytes()
    random = np.random.default_rng(seed)

    def reads():
        for copy in damaged(whole, rounds * _COPIES, random):
            path.write_bytes(copy)
            yield functools.partial(reports.read_results, folder)

    return count_reads(reads(), [written], str(path))
