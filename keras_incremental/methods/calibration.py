"""One scale and one bias for each part of the logits, so that they compare."""

import numpy as np
import scipy.optimize
import scipy.special

_SMALLEST_SCALE = 1e-2


def fit_calibration(
    logits: np.ndarray,
    units: np.ndarray,
    branch_of_unit: np.ndarray,
    ridge: float = 1e-3,
) -> tuple[np.ndarray, np.ndarray]:
    """Fits a scale and a bias for each branch by cross-entropy.

    `sum over classes of mean of -log softmax(s[b] * z + c[b])[y]`, divided by
    the number of classes, `+ ridge * (|s - 1|^2 + |c|^2)`: convex, and every
    class weighs the same. Branches trained apart do not compare on one scale
    (Sarwar, Ankit and Roy, IEEE Access 8, 2020); how the authors calibrate is
    not published in detail, so this definition is ours. The small ridge keeps
    the scales finite where the exemplars are separated without an error.

    Args:
        logits: `(samples, units)`, uncalibrated, of the exemplars.
        units: `(samples,)` int, their classes.
        branch_of_unit: `(units,)` int, 0 for the base.
        ridge: weight of the penalty.

    Returns:
        `(scales, biases)`, float64 `(branches,)`; scales are above 0, so that
        the order of the classes within a branch stays.

    >>> logits = np.array([[2.0, 9.0], [0.0, 6.0], [0.0, 9.0]])
    >>> scales, biases = fit_calibration(
    ...     logits, np.array([0, 1, 1]), np.array([0, 1]))
    >>> calibrated = logits * scales + biases
    >>> calibrated.argmax(axis=1).tolist()
    [0, 1, 1]
    """
    _, inverse, counts = np.unique(
        units, return_inverse=True, return_counts=True
    )
    weights = 1.0 / (counts[inverse] * len(counts))
    of_branch = np.eye(branch_of_unit.max() + 1)[branch_of_unit]
    return fit_affine(logits, units, of_branch, weights, ridge)


def fit_affine(
    logits: np.ndarray,
    units: np.ndarray,
    of_part: np.ndarray,
    weights: np.ndarray,
    ridge: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Fits a scale and a bias for each part of the logits by cross-entropy.

    `sum of weight * -log softmax(s[p] * z + c[p])[y]`
    `+ ridge * (|s - 1|^2 + |c|^2)`.

    Args:
        logits: `(samples, units)`.
        units: `(samples,)` int, their classes.
        of_part: `(units, parts)`, 1 where a unit is of a part, else 0; units
            that are of none keep their logits.
        weights: `(samples,)`.
        ridge: weight of the penalty.

    Returns:
        `(scales, biases)`, float64 `(parts,)`; scales are above 0.
    """
    logits = np.asarray(logits, np.float64)
    parts = of_part.shape[1]
    target = np.zeros_like(logits)
    target[np.arange(len(units)), units] = 1.0

    def loss_and_gradient(parameters):
        scales, biases = np.split(parameters, 2)
        scores = logits * (1 + of_part @ (scales - 1)) + of_part @ biases
        log_p = scores - scipy.special.logsumexp(scores, axis=1, keepdims=True)
        error = weights[:, None] * (np.exp(log_p) - target)
        loss = -(weights @ log_p[np.arange(len(units)), units])
        gradient = np.concatenate(
            [(error * logits).sum(0) @ of_part, error.sum(0) @ of_part]
        )
        off = parameters - start
        return loss + ridge * off @ off, gradient + 2 * ridge * off

    start = np.concatenate([np.ones(parts), np.zeros(parts)])
    bounds = [(_SMALLEST_SCALE, None)] * parts + [(None, None)] * parts
    found = scipy.optimize.minimize(
        loss_and_gradient, start, jac=True, bounds=bounds, method="L-BFGS-B"
    )
    scales, biases = np.split(found.x, 2)
    return scales, biases
