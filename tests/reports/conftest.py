"""Results of runs, as an experiment would write them."""

import pytest

from keras_incremental import metrics


@pytest.fixture
def make_results():
    """Returns a function that makes the results of a small run."""
    return _results


def _results(
    method="eeil", seed=0, dataset="digits", seen=(2, 4), accuracies=(0.9, 0.6)
):
    matrix = metrics.AccuracyMatrix()
    tasks = []
    for task, (classes, accuracy) in enumerate(
        zip(seen, accuracies, strict=True)
    ):
        matrix.record([accuracy] * (task + 1))
        tasks.append(
            {
                "task": task,
                "classes": [str(c) for c in range(classes)][-2:],
                "seen_classes": classes,
                "accuracy": accuracy,
                "top5_accuracy": 1.0,
                "per_task_accuracy": [accuracy] * (task + 1),
                "exemplars": 100,
                "train_seconds": 3.1,
                "overhead_seconds": 0.4,
            }
        )
    after_first = metrics.average_incremental_accuracy_after_first(accuracies)
    return {
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "class_order": list(range(seen[-1])),
        "flags": {"learning_rate": 0.1, "method": method},
        "tasks": tasks,
        "accuracy_matrix": matrix.to_list(),
        "average_incremental_accuracy": (
            metrics.average_incremental_accuracy(accuracies)
        ),
        "average_incremental_accuracy_after_first": after_first,
        "final_accuracy": accuracies[-1],
        "forgetting": metrics.forgetting(matrix.values),
        "backward_transfer": metrics.backward_transfer(matrix.values),
        "train_function_traces": 2,
    }
