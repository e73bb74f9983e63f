"""The learning rate within a step."""

import keras


class LearningRate:
    """Applies a phase's factors to the compiled learning rate.

    Only changes of the factor are applied, so that what a callback such as
    `ReduceLROnPlateau` does in between is kept. An optimizer with a
    `LearningRateSchedule` of its own is left alone.

    Keras' SGD keeps the learning rate inside its velocity,
    `v = momentum * v - rate * gradient`. After a drop of the rate the old
    velocity would run on for many steps with gradients too small to steer it,
    which on small sets undoes epochs of training; it is therefore scaled by
    the same factor (Goyal et al. 2017, arXiv:1706.02677, section 3, "momentum
    correction").

    Args:
        optimizer: the compiled one.

    Attributes:
        factor: the one in effect; a restored optimizer has one in it.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        # A LossScaleOptimizer (mixed_float16) has the rate inside.
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        self._optimizer = optimizer
        rate = optimizer.get_config().get("learning_rate")
        self._fixed = isinstance(rate, (int, float))
        self._compiled = self.now
        self.factor = 1.0

    @property
    def now(self) -> float:
        """The learning rate at this moment."""
        rate = self._optimizer.learning_rate
        # A callable gives a number; a variable copied to replicas is none.
        return rate if isinstance(rate, float) else float(rate.numpy())

    def restart(self) -> None:
        """Goes back to the compiled learning rate."""
        if self._fixed:
            self._optimizer.learning_rate = self._compiled
            self.factor = 1.0

    def apply(self, factor: float) -> None:
        """Moves the rate from the last factor to this one."""
        if factor <= 0:
            raise ValueError(
                f"learning_rate_factor gave {factor}; expected a number above "
                "0. For a warm-up, start at a small one."
            )
        if self._fixed and factor != self.factor:
            change = factor / self.factor
            self._optimizer.learning_rate = self.now * change
            self._scale_velocity(change)
            self.factor = factor

    def _scale_velocity(self, change: float) -> None:
        optimizer = self._optimizer
        if isinstance(optimizer, keras.optimizers.SGD) and optimizer.momentum:
            for velocity in optimizer.momentums:
                velocity.assign(velocity * change)
