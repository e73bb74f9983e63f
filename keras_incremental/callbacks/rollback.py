"""A step is all or nothing."""

import contextlib

import tensorflow as tf

from keras_incremental.exemplars import ExemplarMemory
from keras_incremental.models import IncrementalClassifier


@contextlib.contextmanager
def undone_on_error(
    model: IncrementalClassifier, memory: ExemplarMemory | None = None
):
    """Restores a model and a memory if the body raises or is interrupted."""
    heads = len(model.heads)
    # A tensor keeps its value: TensorFlow copies it only once it is assigned.
    before = [tf.identity(weight) for weight in model.weights]
    stored = None if memory is None else memory.stored()
    try:
        yield
    except BaseException:
        model.drop_heads(heads)
        for weight, value in zip(model.weights, before, strict=True):
            weight.assign(value)
        if memory is not None:
            memory.restore(stored)
        raise
