"""Types of arguments that several parts of the package share."""

import os

import tensorflow as tf
from numpy.typing import ArrayLike

PathLike = str | os.PathLike
Images = ArrayLike | tf.data.Dataset
Labels = ArrayLike
