"""A Keras model that trains on one device, several, or several workers."""

from collections.abc import Callable

import keras

from keras_incremental import distribution
from keras_incremental.networks import traced


class DistributedModel(keras.Model):
    """A Keras model that several workers can train.

    Keras' own `fit` and `evaluate` fail under several workers
    (keras-team/keras#20585).
    """

    def make_train_function(self, force=False):
        if force or self.train_function is None:
            super().make_train_function(force=True)
            self.train_function = self._for_workers(
                self.train_step, self.train_function
            )
        return self.train_function

    def make_test_function(self, force=False):
        if force or self.test_function is None:
            super().make_test_function(force=True)
            self.test_function = self._for_workers(
                self.test_step, self.test_function
            )
        return self.test_function

    def make_predict_function(self, force=False):
        if force or self.predict_function is None:
            super().make_predict_function(force=True)
            replicas = self.distribute_strategy.num_replicas_in_sync
            if replicas == 1 and not self.run_eagerly:
                self.predict_function = traced(self.predict_function)
        return self.predict_function

    def _for_workers(self, step: Callable, function: Callable) -> Callable:
        """Returns Keras' function of a step, or ours for several workers."""
        strategy = self.distribute_strategy
        if not distribution.is_multi_worker(strategy):
            return function
        if self.steps_per_execution != 1:
            raise ValueError(
                "The model is compiled with steps_per_execution="
                f"{self.steps_per_execution!r}; expected 1 of several workers."
            )
        return distribution.step_function(step, strategy)

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
