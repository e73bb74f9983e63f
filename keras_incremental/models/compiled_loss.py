"""The losses that a classifier of logits can be compiled with."""

import inspect

import keras


def check_takes_logits(loss) -> None:
    """Refuses a compiled loss that would take the logits for probabilities."""
    if loss is not None and any(
        map(_takes_probabilities, keras.tree.flatten(loss))
    ):
        raise ValueError(
            f"compile got loss={loss!r}, which takes probabilities; the model "
            "gives logits. Leave loss out, or pass "
            "keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
        )


def _takes_probabilities(loss) -> bool:
    """Whether a loss has an option `from_logits`, and it is off."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if isinstance(loss, keras.Loss):
        return loss.get_config().get("from_logits") is False
    if not inspect.isfunction(loss):
        return False
    option = inspect.signature(loss).parameters.get("from_logits")
    return option is not None and option.default is False
