"""Replaces the user's labels by units in whatever Keras takes as data."""

import keras
import tensorflow as tf

from keras_incremental.distribution import split_batches
from keras_incremental.labels import ClassIndex, carried_names, whole_labels


def to_unit_data(classes: ClassIndex, x, y):
    """Returns `(x, y)` for Keras, with units in place of labels.

    Args:
        classes: the mapping.
        x: arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset` or a
            generator of batches.
        y: labels beside arrays, else `None`.

    Raises:
        ValueError: for unknown labels in arrays, at once; in the other kinds
            of data when they are read. For data that carry another name for a
            known label.
    """
    classes.check_names(carried_names(x), "The dataset")
    if isinstance(x, tf.data.Dataset):

        def with_units(images, labels, *weights):
            return (images, classes.map_labels(labels), *weights)

        return x.map(with_units), y
    if isinstance(x, keras.utils.PyDataset):
        return _UnitDataset(classes, x), y
    if hasattr(x, "__next__"):
        return (_with_units(classes, batch) for batch in x), y
    return x, classes.to_units(y)


def unit_validation_data(classes: ClassIndex, validation_data):
    """Does the same for the `validation_data` of `fit`."""
    if isinstance(validation_data, (tuple, list)):
        return _with_units(classes, validation_data)
    if validation_data is None:
        return None
    return to_unit_data(classes, validation_data, None)[0]


def evaluation_data(strategy, x, steps: int | None):
    """Returns data for Keras' `evaluate`, split for the replicas, and steps.

    Under a strategy Keras traces the test step anew for each dataset of
    another length; one that is repeated has none.

    Args:
        strategy: The model's, a `tf.distribute.Strategy`.
        x: as `to_unit_data` returns it; other than a `tf.data.Dataset` it is
            returned as it is.
        steps: as the user passed it, or `None`.
    """
    if strategy.num_replicas_in_sync == 1 or not isinstance(x, tf.data.Dataset):
        return x, steps
    batches = int(x.cardinality())
    if batches > 0:
        x, steps = x.repeat(), steps or batches
    return split_batches(strategy, x), steps


def unit_weights(classes: ClassIndex, class_weight: dict) -> dict:
    """Returns the `class_weight` of `fit` by unit in place of by label.

    Raises:
        ValueError: for unknown labels.
    """
    units = classes.to_units(list(class_weight)).tolist()
    return dict(zip(units, class_weight.values(), strict=True))


def _with_units(classes: ClassIndex, batch) -> tuple:
    images, labels, *weights = batch
    return (images, classes.to_units(whole_labels(labels)), *weights)


class _UnitDataset(keras.utils.PyDataset):
    def __init__(self, classes: ClassIndex, dataset):
        super().__init__(
            dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size
        )
        self._classes, self._dataset = classes, dataset

    def __getitem__(self, index):
        return _with_units(self._classes, self._dataset[index])

    @property
    def num_batches(self):
        return self._dataset.num_batches

    def on_epoch_begin(self):
        self._dataset.on_epoch_begin()

    def on_epoch_end(self):
        self._dataset.on_epoch_end()
