"""One step of a scenario: the classes that arrive and their images."""

import dataclasses

import tensorflow as tf

from keras_incremental.labels import listed


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """The classes that arrive at one step, and the images to learn and test.

    The datasets are unbatched `(image, label)` pairs, and `len` counts them.
    The image keeps its own dtype, the label is an int64 or string scalar.
    Images come in data set order, the same in every pass: shuffle `train`
    before batching where the data is sorted by class.

    Args:
        index: position of the task in its scenario, from 0.
        labels: labels of the new classes, in order of arrival.
        class_names: their names, in the same order.
        train: training images of the new classes.
        test: test images of the new classes.
        seen_test: test images of every class of this and earlier tasks.
    """

    index: int
    labels: list
    class_names: list
    train: tf.data.Dataset
    test: tf.data.Dataset
    seen_test: tf.data.Dataset

    def __repr__(self):
        return (
            f"<Task {self.index}: {len(self.labels)} new classes: "
            f"{listed(self.class_names)}; images: {len(self.train)} to learn, "
            f"{len(self.test)} to test, {len(self.seen_test)} of all classes>"
        )
