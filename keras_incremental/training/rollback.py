"""A task is all or nothing."""

import contextlib

import tensorflow as tf

from keras_incremental.exemplars import ExemplarMemory
from keras_incremental.models import IncrementalClassifier


@contextlib.contextmanager
def undone_on_error(
    model: IncrementalClassifier, memory: ExemplarMemory | None = None
):
    """Restores a model and a memory if the body raises or is interrupted."""
    network, rule, heads = model.network, model.score_rule, len(model.heads)
    # A tensor keeps its value: TensorFlow copies it only once it is assigned.
    before = [
        (variable, tf.identity(variable))
        for variable in model.state_variables()
    ]
    stored = None if memory is None else memory.stored()
    try:
        yield
    except BaseException:
        model.network = network
        model.remove_classes(heads)
        model.score_rule = rule
        for variable, value in before:
            variable.assign(value)
        if memory is not None:
            memory.restore(stored)
        raise
