"""What is kept of the features of all images: sums for each class."""

import dataclasses

import numpy as np
import scipy.linalg


@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums over the features of each class's images, in float64.

    Any order and any split of the images give the same sums, to rounding. The
    sum of squares of a class, `G_c = sum f f'`, is kept as a factor `R_c` with
    `G_c = R_c' R_c`, which has no more rows than the class has images or
    features; so a class can be taken out again.

    Attributes:
        counts: `(classes,)` int64, images of each class.
        totals: `(classes, dim)`, the sum of each class's features.
        factors: the factor of each class, `(rows, dim)`; or, to save room, one
            of all classes, and then no class can be taken out.

    >>> features = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]])
    >>> sums = Sums.none(dim=2).plus(features, np.array([0, 1, 0]), classes=2)
    >>> sums.counts.tolist(), np.round(sums.gram()).tolist()
    ([2, 1], [[35.0, 49.0], [49.0, 69.0]])
    """

    counts: np.ndarray
    totals: np.ndarray
    factors: tuple[np.ndarray, ...]
    by_class: bool = True

    def __repr__(self):
        return (
            f"<Sums: {self.counts.sum()} images of {len(self.counts)} classes, "
            f"{self.dim} features>"
        )

    @classmethod
    def none(cls, dim: int, by_class: bool = True) -> "Sums":
        """Returns the sums of no images and no classes."""
        factors = () if by_class else (np.zeros((0, dim)),)
        return cls(np.zeros(0, int), np.zeros((0, dim)), factors, by_class)

    @property
    def dim(self) -> int:
        """How many features there are."""
        return self.totals.shape[1]

    @property
    def nbytes(self) -> int:
        """The bytes that all of it takes."""
        arrays = [self.counts, self.totals, *self.factors]
        return sum(array.nbytes for array in arrays)

    def plus(
        self, features: np.ndarray, units: np.ndarray, classes: int
    ) -> "Sums":
        """Returns the sums with more images.

        Args:
            features: `(images, dim)`.
            units: `(images,)` int, their classes.
            classes: how many classes there are then, new ones at the end.
        """
        features = np.asarray(features, np.float64)
        more = classes - len(self.counts)
        totals = np.pad(self.totals, [(0, more), (0, 0)])
        np.add.at(totals, units, features)
        counts = np.pad(self.counts, (0, more))
        counts = counts + np.bincount(units, minlength=classes)
        if not self.by_class:
            factors = (_factor(self.factors[0], features),)
        else:
            empty = np.zeros((0, self.dim))
            factors = tuple(
                _factor(factor, features[units == unit])
                for unit, factor in enumerate([*self.factors, *more * [empty]])
            )
        return dataclasses.replace(
            self, counts=counts, totals=totals, factors=factors
        )

    def without(self, units: list[int]) -> "Sums":
        """Returns the sums of the other classes' images.

        Raises:
            ValueError: if the squares of all classes have been added up.
        """
        if not self.by_class:
            raise ValueError(
                "The sums of all classes have been added up, so no class can "
                "be taken out. Analytic(forgettable=True) keeps them apart."
            )
        kept = np.setdiff1d(np.arange(len(self.counts)), units)
        return dataclasses.replace(
            self,
            counts=self.counts[kept],
            totals=self.totals[kept],
            factors=tuple(self.factors[unit] for unit in kept),
        )

    def means(self) -> np.ndarray:
        """Returns the mean feature of each class, `(classes, dim)`."""
        return self.totals / np.maximum(self.counts, 1)[:, np.newaxis]

    def gram(self) -> np.ndarray:
        """Returns `G = sum f f'` over all images, `(dim, dim)`."""
        gram = np.zeros((self.dim, self.dim))
        for factor in self.factors:
            gram += factor.T @ factor
        return gram

    def scatter(self) -> np.ndarray:
        """Returns `sum (f - m_c)(f - m_c)'` over all images, `(dim, dim)`."""
        return self.gram() - self.means().T @ self.totals


def _factor(factor: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Returns a factor of `R'R + F'F` with as few rows as it can have."""
    rows = np.concatenate([factor, features])
    if not len(features) or len(rows) <= rows.shape[1]:
        return rows
    return scipy.linalg.qr(rows, mode="r", check_finite=False)[0][
        : rows.shape[1]
    ]
