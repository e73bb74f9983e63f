"""A linear classifier of the features, solved from sums."""

from typing import Any

import keras
import numpy as np

from keras_incremental.closed_form import Solver, Sums
from keras_incremental.score_rules.score_rule import ScoreRule


@keras.saving.register_keras_serializable(package="keras_incremental")
class ClosedForm(ScoreRule):
    """Scores `f @ kernel + bias`, a dense layer that is solved, not trained.

    The sums that it is solved from are saved with it, so that more images and
    more classes can be added at any time, and classes taken out. A published
    version has kernel and bias alone.

    Source: RanPAC (McDonnell et al., NeurIPS 2023, arXiv:2307.02251) for the
    random features.

    Args:
        solver: how kernel and bias follow from the sums.
        dim: how many features the network has.
        sums: of the features of all images, after the random ones; by default
            of none.
        random_features: the features are `relu(f R)` with so many columns of
            `R`, Gaussian numbers; 0 takes them as they are.
        seed: of `R`.
        **kwargs: those of `keras.layers.Layer`.

    Input shapes: features `(batch, dim)` and logits, which do not matter.
    Output shape: `(batch, classes)`, float32.

    Raises:
        ValueError: if the sums are of another number of features.

    >>> from keras_incremental.closed_form import NearestClassMean
    >>> rule = ClosedForm(NearestClassMean(), dim=2)
    >>> rule = rule.plus(np.eye(2), np.array([0, 1]), classes=2)
    >>> int(rule(np.array([[0.1, 0.7]]), None)[0].numpy().argmax())
    1
    """

    def __init__(
        self,
        solver: Any,
        dim: int,
        sums: Any = None,
        random_features: int = 0,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.solver, self.dim = solver, dim
        self.random_features, self.seed = random_features, seed
        width = random_features or dim
        sums = Sums.none(width) if sums is None else sums
        if sums.dim != width:
            raise ValueError(
                f"ClosedForm got sums of {sums.dim} features; expected {width}."
            )
        self._by_class = sums.by_class
        self._rows = [len(factor) for factor in sums.factors]
        self.kernel = self.add_constant(
            "kernel", np.zeros((width, len(sums.counts)))
        )
        self.bias = self.add_constant("bias", np.zeros(len(sums.counts)))
        factors = np.concatenate([np.zeros((0, width)), *sums.factors])
        self._counts = self.add_constant("counts", sums.counts, "float64")
        self._totals = self.add_constant("totals", sums.totals, "float64")
        self._factors = self.add_constant("factors", factors, "float64")
        self._projection = _gaussian(seed, dim, random_features)
        self.built = True

    @property
    def sums(self) -> Sums:
        """The sums of the features of all images."""
        factors = np.split(self._factors.numpy(), np.cumsum(self._rows)[:-1])
        return Sums(
            np.round(self._counts.numpy()).astype(int),
            self._totals.numpy(),
            tuple(factors[: len(self._rows)]),
            self._by_class,
        )

    def with_solver(self, solver: Solver) -> "ClosedForm":
        """Returns the rule with another solver, to be solved."""
        return self._with(solver, self.sums)

    def with_classes(self, classes: int) -> "ClosedForm":
        """Returns the rule for so many classes, to be solved.

        Args:
            classes: how many there are then, new ones without an image.
        """
        nothing = np.zeros((0, self.sums.dim)), np.zeros(0, int)
        return self._with(self.solver, self.sums.plus(*nothing, classes))

    @property
    def kept_bytes(self):
        return self.sums.nbytes

    def plus(
        self, features: np.ndarray, units: np.ndarray, classes: int
    ) -> "ClosedForm":
        """Returns the rule for more images.

        Args:
            features: `(images, dim)`, the network's.
            units: `(images,)` int, their classes.
            classes: how many classes there are then, new ones at the end.

        Raises:
            ValueError: if there is no image of a class.
        """
        wide = np.asarray(self._features(features))
        return self._solved(self.sums.plus(wide, units, classes))

    def without(self, units):
        return self._solved(self.sums.without(units))

    def call(self, features, logits):
        return self._features(features) @ self.kernel + self.bias

    def compute_output_shape(self, features_shape, logits_shape):
        return (features_shape[0], self.bias.shape[0])

    def get_config(self):
        return {
            **super().get_config(),
            "solver": keras.saving.serialize_keras_object(self.solver),
            "dim": self.dim,
            "random_features": self.random_features,
            "seed": self.seed,
            "classes": self.bias.shape[0],
            "rows": self._rows,
            "by_class": self._by_class,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        solver = keras.saving.deserialize_keras_object(config.pop("solver"))
        if not isinstance(solver, Solver):
            raise ValueError(f"{solver!r} is no Solver.")
        width = config["random_features"] or config["dim"]
        classes = config.pop("classes")
        sums = Sums(
            np.zeros(classes, int),
            np.zeros((classes, width)),
            tuple(np.zeros((rows, width)) for rows in config.pop("rows")),
            config.pop("by_class"),
        )
        return cls(solver, sums=sums, **config)

    def _solved(self, sums: Sums) -> "ClosedForm":
        missing = np.flatnonzero(sums.counts == 0)
        if len(missing):
            raise ValueError(
                f"There is no image of the units {missing[:10].tolist()}, and "
                "nothing to solve them from."
            )
        rule = self._with(self.solver, sums)
        kernel, bias = rule.solver.solve(sums)
        rule.kernel.assign(kernel)
        rule.bias.assign(bias)
        return rule

    def _with(self, solver: Solver, sums: Sums) -> "ClosedForm":
        return ClosedForm(
            solver, self.dim, sums, self.random_features, self.seed
        )

    def _features(self, features):
        features = keras.ops.cast(features, "float32")
        if self._projection is None:
            return features
        return keras.ops.relu(features @ self._projection)


def _gaussian(seed: int, dim: int, columns: int) -> np.ndarray | None:
    """Returns `R`, `(dim, columns)`; the same in every version of NumPy."""
    if not columns:
        return None
    values = np.random.RandomState(seed).standard_normal((dim, columns))
    return (values / np.sqrt(dim)).astype(np.float32)
