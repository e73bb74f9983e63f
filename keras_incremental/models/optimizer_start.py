"""The optimizer, set back to its start."""

import keras


class OptimizerStart:
    """Keeps the values of an optimizer that has just been built."""

    def __init__(self):
        self._optimizer, self._values = None, None

    def restart(self, optimizer: keras.optimizers.Optimizer, variables) -> None:
        """Sets momentum, moments and step count back to the start.

        Args:
            optimizer: built by this method, by Keras, or not yet.
            variables: those that are trained.
        """
        if not optimizer.built:
            optimizer.build(variables)
            self._optimizer = optimizer
            self._values = [value.numpy() for value in optimizer.variables]
            return
        start = self._values
        if self._optimizer is not optimizer:  # built by a plain fit, or loaded
            fresh = fresh_optimizer(optimizer)
            fresh.build(variables)
            start = fresh.variables
        for variable, value in zip(optimizer.variables, start, strict=True):
            variable.assign(value)


def fresh_optimizer(optimizer: keras.optimizers.Optimizer):
    """Returns an unused optimizer of the same kind and configuration."""
    return type(optimizer).from_config(optimizer.get_config())
