"""The optimizer, set back to its start, and made anew for other variables."""

import inspect
import re
from collections.abc import Iterable

import keras


def restart(optimizer: keras.optimizers.Optimizer, variables) -> None:
    """Sets momentum, moments and step count back to the start.

    The learning rate stays as it is.

    Args:
        optimizer: built or not yet.
        variables: those that are trained.
    """
    if not optimizer.built:
        optimizer.build(variables)
        return
    fresh = fresh_optimizer(optimizer)
    fresh.build(variables)
    for mine, start in zip(optimizer.variables, fresh.variables, strict=True):
        mine.assign(start)


def fresh_optimizer(
    optimizer: keras.optimizers.Optimizer,
    before: Iterable[keras.Variable] = (),
    after: Iterable[keras.Variable] = (),
):
    """Returns an unused optimizer of the same kind and configuration.

    The learning rate is the present one. What `exclude_from_weight_decay` has
    excluded stays so, for variables of the same names in clones too.

    Args:
        optimizer: built or not.
        before: the variables that were trained by it.
        after: those that are to be trained by the new one.

    Raises:
        TypeError: if its class cannot be made anew from its configuration.
    """
    config = optimizer.get_config()
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        del config["inner_optimizer"]
        inner = fresh_optimizer(optimizer.inner_optimizer, before, after)
        return type(optimizer)(inner, **config)
    _check_config(optimizer, config)
    fresh = _with_rate_of(optimizer, config)
    _exclude_alike(optimizer, fresh, list(before), list(after))
    return fresh


def _check_config(optimizer, config: dict) -> None:
    """Refuses a configuration that lacks what the constructor takes."""
    kind = type(optimizer)
    missing = [
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind
        not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and name not in config
    ]
    if missing:
        raise TypeError(
            f"{kind.__name__}.get_config() lacks {missing}, which its "
            "constructor takes. The optimizer is made anew whenever the model "
            "gets other variables. Give the class a get_config that returns "
            "{**super().get_config(), "
            + ", ".join(f'"{name}": self.{name}' for name in missing)
            + "}."
        )


def _with_rate_of(optimizer, config: dict):
    """Returns an optimizer of a configuration and of the same learning rate.

    A schedule or a function is taken as it is: a configuration cannot hold
    every function. Keras has no public attribute for it.
    """
    rate = getattr(optimizer, "_learning_rate", None)
    if callable(rate):
        config["learning_rate"] = rate
    try:
        return type(optimizer).from_config(config)
    except TypeError as error:
        raise TypeError(
            f"{type(optimizer).__name__}.from_config(get_config()) fails: "
            f"{error}. The optimizer is made anew whenever the model gets "
            "other variables. Give the class a get_config with all that its "
            "constructor takes, and nothing else."
        ) from error


def _exclude_alike(optimizer, fresh, before: list, after: list) -> None:
    """Excludes from weight decay what the other optimizer has excluded.

    Keras has no public way to read that, so its private attributes are.
    """
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    keys = getattr(optimizer, "_exclude_from_weight_decay", set())
    if pattern is None and not keys:
        return
    names = {_role(v): optimizer._var_key(v) in keys for v in before}
    fresh.exclude_from_weight_decay(var_names=pattern and [pattern.pattern])
    # Those of before stay excluded: they are back if a step is undone.
    fresh._exclude_from_weight_decay = keys | {
        fresh._var_key(variable)
        for variable in after
        if names.get(_role(variable), names.get(_role(variable, of_block=True)))
    }


def _role(variable: keras.Variable, of_block: bool = False) -> tuple[str, ...]:
    """Returns the names of layer and variable; for a block those of the first.

    A head's blocks are `kernel`, `kernel_1`, ...
    """
    layer_and_name = tuple(variable.path.split("/")[-2:])
    if not of_block:
        return layer_and_name
    return *layer_and_name[:-1], re.sub(r"_\d+$", "", layer_and_name[-1])
