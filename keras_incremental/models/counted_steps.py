"""Epochs of so many steps, on one device, several, or several workers."""

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_incremental import distribution
from keras_incremental.models.epoch_steps import EpochSteps


class CountedStepsModel(keras.Model):
    """A Keras model whose `fit` and `evaluate` end where they are told to.

    Keras' own round the steps of endless data up to whole executions of
    `steps_per_execution`, and fail under several workers
    (keras-team/keras#20585).
    """

    def __init__(self, name=None):
        super().__init__(name=name)
        self._steps = _Steps()

    def fit(self, x=None, *args, **kwargs):
        """As Keras' `fit`; of an endless dataset, just `steps_per_epoch` steps.

        Keras' own rounds them up to whole executions of
        `steps_per_execution`, and so goes on into the next epoch's data.
        """
        self._steps.of_fit = self._steps_of(x, kwargs.get("steps_per_epoch"))
        try:
            return super().fit(x, *args, **kwargs)
        finally:
            self._steps.of_fit = EpochSteps()

    def evaluate(self, x=None, *args, **kwargs):
        """As Keras' `evaluate`; of an endless dataset, just `steps` steps."""
        self._steps.of_evaluate = self._steps_of(x, kwargs.get("steps"))
        try:
            # A function is traced for inside and for outside of a scope.
            with self.distribute_strategy.scope():
                return super().evaluate(x, *args, **kwargs)
        finally:
            self._steps.of_evaluate = EpochSteps()

    def _steps_of(self, data, number: int | None) -> EpochSteps:
        """Returns the steps to count; none where the data end by themselves."""
        return EpochSteps(
            number or None if _is_endless(data) else None,
            self.steps_per_execution,
        )

    def make_train_function(self, force=False):
        if force or self.train_function is None:
            super().make_train_function(force=True)
            self.train_function = self._counting(
                lambda: self._steps.of_fit,
                self.train_step,
                self.train_function,
            )
        return self.train_function

    def make_test_function(self, force=False):
        if force or self.test_function is None:
            super().make_test_function(force=True)
            self.test_function = self._counting(
                lambda: self._steps.of_evaluate,
                self.test_step,
                self.test_function,
            )
        return self.test_function

    def _counting(
        self,
        epoch_steps: Callable[[], EpochSteps],
        step: Callable,
        to_the_end: Callable,
    ) -> Callable:
        """Returns a function of `fit` or `evaluate` that ends where it should.

        Args:
            epoch_steps: returns how many steps there are.
            step: from a batch to logs.
            to_the_end: Keras' function, for data that end with the epoch.
        """
        strategy, at_once = self.distribute_strategy, self.steps_per_execution
        is_multi_worker = distribution.is_multi_worker(strategy)
        if at_once == 1 and not is_multi_worker:
            return to_the_end
        if strategy.num_replicas_in_sync > 1:
            to_the_end = distribution.steps_to_the_end(step, strategy, at_once)
        counted = distribution.steps_in_one_call(
            step, strategy, self.run_eagerly
        )

        def function(iterator):
            epoch = epoch_steps()
            if epoch.number is None:
                return to_the_end(iterator)
            return counted(iterator, tf.constant(epoch.next_count()))

        return function

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Builds optimizer, compiled loss and metrics before the first step.

        Keras' own reads a batch and reduces it over the replicas, which fails
        for parts of unequal size and for several workers
        (keras-team/keras#20585). Both methods are private; without a strategy
        neither does anything.
        """
        if self.distribute_strategy.num_replicas_in_sync == 1:
            super()._maybe_symbolic_build(iterator, data_batch)
            return
        images = keras.KerasTensor(self.input_shape, "float32")
        units = keras.KerasTensor((None,), "int32")
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=(images, units))


class _Steps:
    """The steps of the `fit` and `evaluate` in course; a plain object."""

    def __init__(self):
        self.of_fit, self.of_evaluate = EpochSteps(), EpochSteps()


def _is_endless(data) -> bool:
    """Whether the data do not end, as far as Keras knows.

    What is split over replicas is either endless or read once.
    """
    if isinstance(data, tf.data.Dataset):
        return int(data.cardinality()) == tf.data.INFINITE_CARDINALITY
    return isinstance(data, tf.distribute.DistributedDataset)
