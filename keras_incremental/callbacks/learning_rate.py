"""The learning rate within a step."""

import keras


class LearningRate:
    """Applies a phase's factors to the compiled learning rate.

    Only changes of the factor are applied, so that what a callback such as
    `ReduceLROnPlateau` does in between is kept. An optimizer with a
    `LearningRateSchedule` of its own is left alone.

    Args:
        optimizer: the compiled one.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        self._optimizer = optimizer
        rate = optimizer.get_config().get("learning_rate")
        self._fixed = isinstance(rate, (int, float))
        self._compiled = float(optimizer.learning_rate)
        self._factor = 1.0

    @property
    def now(self) -> float:
        """The learning rate at this moment."""
        return float(self._optimizer.learning_rate)

    def restart(self) -> None:
        """Goes back to the compiled learning rate."""
        if self._fixed:
            self._optimizer.learning_rate = self._compiled
            self._factor = 1.0

    def apply(self, factor: float) -> None:
        """Moves the rate from the last factor to this one."""
        if self._fixed and factor != self._factor:
            self._optimizer.learning_rate = self.now * factor / self._factor
            self._factor = factor
