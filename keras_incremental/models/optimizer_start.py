"""The optimizer, set back to its start."""

import keras


def restart(optimizer: keras.optimizers.Optimizer, variables) -> None:
    """Sets momentum, moments and step count back to the start.

    Args:
        optimizer: built, or not yet.
        variables: those that are trained.
    """
    if not optimizer.built:
        optimizer.build(variables)
        return
    fresh = fresh_optimizer(optimizer)
    fresh.build(variables)
    for mine, start in zip(optimizer.variables, fresh.variables, strict=True):
        mine.assign(start)


def fresh_optimizer(optimizer: keras.optimizers.Optimizer):
    """Returns an unused optimizer of the same kind and configuration."""
    return type(optimizer).from_config(optimizer.get_config())
