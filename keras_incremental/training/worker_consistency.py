"""What all workers of a step have to have alike, checked before they wait."""

import hashlib

import keras

from keras_incremental.distribution import check_same
from keras_incremental.exemplars import ExemplarMemory
from keras_incremental.models import IncrementalClassifier


def check_same_step(
    model: IncrementalClassifier,
    memory: ExemplarMemory | None,
    request: object,
) -> None:
    """Refuses workers that have been asked for different steps.

    Args:
        model: before the step.
        memory: before the step.
        request: what was asked for, of types whose `repr` tells all.

    Raises:
        ValueError: in every worker, if they differ.
    """

    def fact():
        labels = [] if memory is None else memory.labels
        stored = [(label, len(memory.images(label))) for label in labels]
        return request, model.labels, stored

    check_same(
        model.distribute_strategy,
        "data, options and backup",
        fact,
        "Run the same program in every worker, on the same data in the same "
        "order; backup_dir has to be on a file system that all of them share.",
    )


def check_same_model(model: IncrementalClassifier) -> None:
    """Refuses workers whose weights differ, to the bit.

    Raises:
        ValueError: in every worker, if they differ.
    """

    def fact():
        digest = hashlib.sha256()
        for variable in model.state_variables():
            digest.update(keras.ops.convert_to_numpy(variable).tobytes())
        return digest.hexdigest()

    check_same(
        model.distribute_strategy,
        "weights after growth",
        fact,
        "Call keras.utils.set_random_seed(seed) with one seed in every worker, "
        "before the model is built.",
    )
