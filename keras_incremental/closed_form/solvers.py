"""How a linear classifier of features follows from their sums."""

import abc
import dataclasses

import keras
import numpy as np
import scipy.linalg

from keras_incremental.closed_form.sums import Sums


class Solver(abc.ABC):
    """From sums to a linear classifier; a frozen dataclass of numbers.

    Register a subclass with `keras.saving.register_keras_serializable`, so
    that a model that was solved by it can be loaded.
    """

    @abc.abstractmethod
    def solve(self, sums: Sums) -> tuple[np.ndarray, np.ndarray]:
        """Returns a kernel `(dim, classes)` and a bias `(classes,)`.

        The class with the highest `f @ kernel + bias` is decided for.
        """

    def get_config(self) -> dict:
        """Returns the numbers, for Keras' serialization."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "Solver":
        """Returns a solver with these numbers."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_incremental")
@dataclasses.dataclass(frozen=True)
class Ridge(Solver):
    """Ridge regression to one column a class.

    `W = (G + l I)^-1 Q`, `G = sum f f'` and `Q = sum f y'`, `f` with a 1
    appended, `l = regularization * trace(G) / dim`. Each class's column of `Q`
    is divided by its images and multiplied by the mean number of images, so
    that classes of few images are not passed over.

    Args:
        regularization: above 0, as a part of the mean square of a feature.

    >>> sums = Sums.none(1).plus([[-1.0], [1.0]], np.array([0, 1]), 2)
    >>> kernel, bias = Ridge(0.01).solve(sums)
    >>> np.round(kernel, 2).tolist(), np.round(bias, 2).tolist()
    ([[-0.5, 0.5]], [0.5, 0.5])
    """

    regularization: float = 0.1

    def __post_init__(self):
        _check_above_0("regularization", self.regularization)

    def solve(self, sums):
        count, total = sums.counts.sum(), sums.totals.sum(axis=0)
        gram = np.block(
            [[sums.gram(), total[:, np.newaxis]], [total[np.newaxis], count]]
        )
        gram += _diagonal(gram, self.regularization)
        means = np.pad(sums.means(), [(0, 0), (0, 1)], constant_values=1.0)
        weights = scipy.linalg.solve(
            gram, sums.counts.mean() * means.T, assume_a="pos"
        )
        return weights[:-1], weights[-1]


@keras.saving.register_keras_serializable(package="keras_incremental")
@dataclasses.dataclass(frozen=True)
class LDA(Solver):
    """Linear discriminant analysis: one covariance for all classes.

    `w_c = S^-1 (m_c - m)`, `b_c = -(m_c + m)' w_c / 2`, `m` the mean of the
    classes' means `m_c`: the usual scores less one that all classes share, so
    that they stay small. `S` is the mean covariance within classes
    `+ prior_images / N * trace / dim * I`, `N` the images of all classes: as if
    there had been `prior_images` before of which every feature varied alike and
    on its own. So the fewer there are, the nearer it is to the nearest mean.
    All classes count as equally frequent.

    Args:
        prior_images: above 0.

    >>> features = [[-1.0], [-3.0], [1.0], [3.0]]
    >>> sums = Sums.none(1).plus(features, np.array([0, 0, 1, 1]), 2)
    >>> kernel, bias = LDA(prior_images=4.0).solve(sums)
    >>> np.round(kernel, 2).tolist(), np.round(bias, 2).tolist()
    ([[-1.0, 1.0]], [-1.0, -1.0])
    """

    prior_images: float = 1000.0

    def __post_init__(self):
        _check_above_0("prior_images", self.prior_images)

    def solve(self, sums):
        images = sums.counts.sum()
        covariance = sums.scatter() / images
        covariance += _diagonal(covariance, self.prior_images / images)
        means = sums.means()
        centre = means.mean(axis=0)
        kernel = scipy.linalg.solve(
            covariance, (means - centre).T, assume_a="pos"
        )
        return kernel, -np.sum((means + centre).T * kernel, axis=0) / 2


@keras.saving.register_keras_serializable(package="keras_incremental")
@dataclasses.dataclass(frozen=True)
class NearestClassMean(Solver):
    """The class whose mean is nearest: `w_c = m_c`, `b_c = -|m_c|^2 / 2`.

    >>> sums = Sums.none(1).plus([[-1.0], [3.0]], np.array([0, 1]), 2)
    >>> kernel, bias = NearestClassMean().solve(sums)
    >>> kernel.tolist(), bias.tolist()
    ([[-1.0, 3.0]], [-0.5, -4.5])
    """

    def solve(self, sums):
        means = sums.means()
        return means.T, -np.square(means).sum(axis=1) / 2


def _diagonal(matrix: np.ndarray, part: float) -> np.ndarray:
    """Returns `part` of the diagonal's mean times the identity."""
    dim = len(matrix)
    # Features that are all 0 leave something to divide by.
    mean = max(np.trace(matrix) / dim, np.finfo(np.float64).tiny)
    return part * mean * np.eye(dim)


def _check_above_0(name: str, value: float) -> None:
    if not 0 < value < np.inf:
        raise ValueError(f"{name}={value!r}; expected a number above 0.")
