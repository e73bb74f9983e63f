"""The losses that a classifier of logits can be compiled with."""

import inspect

import keras
import numpy as np

_UNITS = np.array([0, 1, 2, 1, 0], np.int32)
_LEAST_GAP = 1e-3  # between losses of order 1


def check_takes_logits(loss) -> None:
    """Refuses a compiled loss that cannot teach a classifier of logits.

    It is tried on a few logits: units are integers, not one-hot rows, and the
    loss of right logits is below that of wrong ones.

    Args:
        loss: as passed to `compile`.

    Raises:
        ValueError: for a loss that takes probabilities, one-hot rows, or units
            as if they were quantities.
    """
    for item in [] if loss is None else keras.tree.flatten(loss):
        tried = keras.losses.get(item)
        reason = (
            "takes probabilities, and the model gives logits"
            if _takes_probabilities(tried)
            else _failure(tried)
        )
        if reason:
            raise ValueError(
                f"compile got loss={item!r}, which {reason}. Leave loss out, "
                "or pass keras.losses.SparseCategoricalCrossentropy("
                "from_logits=True)."
            )


def _takes_probabilities(loss) -> bool:
    """Whether a loss has an option `from_logits`, and it is off."""
    if isinstance(loss, keras.Loss):
        return loss.get_config().get("from_logits") is False
    if not inspect.isfunction(loss):
        return False
    option = inspect.signature(loss).parameters.get("from_logits")
    return option is not None and option.default is False


def _failure(loss) -> str | None:
    """Returns what a loss does wrong on logits, half of which are right."""
    is_of_keras = _is_of_keras(loss)
    logits = 5.0 * (2.0 * np.eye(3, dtype="float32")[_UNITS] - 1.0)
    try:
        right, wrong = (
            float(np.mean(loss(_UNITS, keras.ops.convert_to_tensor(rows))))
            for rows in (logits, np.roll(logits, 1, axis=1))
        )
    except Exception:  # a loss of the user's may want other logits than these
        return "does not take integer classes" if is_of_keras else None
    gap = wrong - right
    if gap >= _LEAST_GAP or not (is_of_keras or np.isnan(gap)):
        return None
    return (
        f"is {right:.3g} for right logits and {wrong:.3g} for wrong ones: it "
        "takes something else than integer classes and logits"
    )


def _is_of_keras(loss) -> bool:
    kind = type(loss) if isinstance(loss, keras.Loss) else loss
    return getattr(keras.losses, getattr(kind, "__name__", ""), None) is kind
