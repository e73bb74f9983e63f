"""A step is all or nothing."""

import contextlib

import keras

from keras_incremental.models import IncrementalClassifier


@contextlib.contextmanager
def undone_on_error(model: IncrementalClassifier):
    """Restores weights and classes if the body raises or is interrupted."""
    heads = len(model.heads)
    before = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    before = [array.copy() for array in before]
    try:
        yield
    except BaseException:
        model.drop_heads(heads)
        for weight, array in zip(model.weights, before, strict=True):
            weight.assign(array)
        raise
