"""Class-incremental scenarios: which classes arrive when, with their images.

A method learns from one task at a time; something has to decide the order in
which classes arrive, cut the data accordingly and count what was cut. That is
done here, in the same way for arrays, folders of images and TensorFlow
Datasets, so that two methods compared on one seed see the same images.
"""

from keras_incremental.scenarios.digits import load_digits
from keras_incremental.scenarios.scenario import ClassIncrementalScenario
from keras_incremental.scenarios.task import Task

__all__ = ["ClassIncrementalScenario", "Task", "load_digits"]
