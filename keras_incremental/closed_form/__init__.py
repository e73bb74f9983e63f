"""Classifiers of features that are solved, not trained, from sums alone."""

from keras_incremental.closed_form.solvers import (
    LDA,
    NearestClassMean,
    Ridge,
    Solver,
)
from keras_incremental.closed_form.sums import Sums

__all__ = ["LDA", "NearestClassMean", "Ridge", "Solver", "Sums"]
