"""Which samples of a class to keep: features in, ranking out (NumPy only).

Every function ranks one class' samples, best first, and has the signature
`(features, count, seed)`. Any prefix of a ranking is the selection of that
size, so shrinking a memory is slicing. Pass your own function of that
signature as `ExemplarMemory(selection=...)`.
"""

import numpy as np
from numpy.typing import ArrayLike


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Returns the rows divided by their Euclidean norm (zero rows stay).

    >>> unit_rows(np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(norms == 0, 1, norms)


def herding_order(features: ArrayLike, count: int, seed: int = 0) -> np.ndarray:
    """Ranks samples so that each prefix' mean is close to the class mean.

    `p_k = argmin_i || m - (f_i + sum_{j<k} f_{p_j}) / k ||`, f of unit
    length, m their mean, each sample chosen at most once.

    Source: iCaRL (Rebuffi et al., CVPR 2017), Algorithm 4. The squared norm
    is `2 / k` times `|f_i|^2 / 2 - k f_i m + f_i sum_{j<k} f_{p_j}`, and what
    does not depend on i. From choice to choice this grows by
    `f_i (f_{p_k} - m)`: one matrix-vector product each, so the time is linear
    in `samples * dim * count`.

    Args:
        features: `(samples, dim)`, float32 or float64; normalised here.
        count: How many to rank, clipped to the number of samples.
        seed: Not used; part of the signature of every selection.

    Returns:
        `(min(count, samples),)` indices, best first.

    >>> herding_order(np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]), 3)
    array([1, 0, 2])
    """
    features = unit_rows(check_features(features))
    mean = features.mean(axis=0)
    gaps = np.einsum("ij,ij->i", features, features) / 2 - features @ mean
    centred = features - mean
    order = []
    for _ in range(min(count, len(features))):
        best = gaps.argmin()
        order.append(best)
        gaps[best] = np.inf  # chosen once
        gaps += features.dot(centred[best])  # `@` costs more for each call
    return np.array(order, int)


def random_order(features: ArrayLike, count: int, seed: int = 0) -> np.ndarray:
    """Ranks samples at random, by `seed`.

    Args:
        features: `(samples, dim)`; only their number matters.
        count: How many to rank, clipped to the number of samples.
        seed: Anything `numpy.random.default_rng` takes.

    Returns:
        `(min(count, samples),)` indices.

    >>> random_order(np.zeros((3, 1)), 5, seed=0).tolist()
    [2, 0, 1]
    """
    samples = len(check_features(features))
    return np.random.default_rng(seed).permutation(samples)[:count]


def nearest_to_mean_order(
    features: ArrayLike, count: int, seed: int = 0
) -> np.ndarray:
    """Ranks samples by the distance of their unit features to their mean.

    Args:
        features: `(samples, dim)`, float32 or float64; normalised here.
        count: How many to rank, clipped to the number of samples.
        seed: Not used; part of the signature of every selection.

    Returns:
        `(min(count, samples),)` indices, nearest first.

    >>> nearest_to_mean_order(np.array([[0.0, 1], [1, 0], [0.9, 0.1]]), 2)
    array([2, 1])
    """
    features = unit_rows(check_features(features))
    distance = np.linalg.norm(features - features.mean(axis=0), axis=1)
    return np.argsort(distance, kind="stable")[:count]


def check_features(features) -> np.ndarray:
    """Returns features as a float array, or says what is wrong with them.

    Raises:
        ValueError: If not `(samples, dim)`, or not finite.
    """
    features = np.asarray(features)
    if features.ndim != 2:
        raise ValueError(
            f"Features have shape {features.shape}; expected (samples, dim)."
        )
    if features.dtype not in (np.float32, np.float64):
        features = features.astype(np.float32)
    if not np.isfinite(features).all():
        raise ValueError(
            "Features hold NaN or infinite values: the training diverged. "
            "Lower the learning rate, or the gradient noise."
        )
    return features
