"""Finds what is not a finite number before anybody gets it."""

from collections.abc import Iterable

import keras
import tensorflow as tf


def not_finite(variables: Iterable[keras.Variable]) -> list[str]:
    """Returns the paths of the variables that hold a NaN or an infinity.

    >>> not_finite([keras.Variable([1.0, float("nan")], name="kernel")])
    ['kernel']
    """
    floating = [v for v in variables if tf.as_dtype(v.dtype).is_floating]
    return [
        variable.path
        for variable in floating
        if not tf.reduce_all(tf.math.is_finite(variable.value))
    ]
