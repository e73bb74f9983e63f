"""The class whose mean feature is nearest."""

from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_incremental.score_rules.score_rule import ScoreRule

_SMALLEST_NORM = 1e-12


@keras.saving.register_keras_serializable(package="keras_incremental")
class NearestMean(ScoreRule):
    """Scores `-|f / |f| - m_c|^2`: the nearest class mean wins.

    Source: iCaRL (Rebuffi et al., CVPR 2017, arXiv:1611.07725), Algorithm 1.

    Args:
        means: `(classes, dim)`, one row a class; each is scaled to length 1.
            `None`, with `shape`, for a rule whose means are loaded.
        shape: `(classes, dim)`, where there are no means yet.
        **kwargs: those of `keras.layers.Layer`.

    Input shapes: features `(batch, dim)` and logits `(batch, classes)`, which
    do not matter. Output shape: `(batch, classes)`, float32, 0 at most.

    Raises:
        ValueError: if `means` is not `(classes, dim)`, or not finite.

    >>> rule = NearestMean([[1.0, 0.0], [0.0, 2.0]])
    >>> int(rule(np.array([[3.0, 4.0]]), np.zeros((1, 2)))[0].numpy().argmax())
    1
    """

    def __init__(
        self,
        means: ArrayLike | None = None,
        shape: tuple[int, int] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        means = np.zeros(shape) if means is None else np.array(means, float)
        if means.ndim != 2 or not np.isfinite(means).all():
            raise ValueError(
                f"NearestMean got means of shape {means.shape}; expected one "
                "finite row of features a class."
            )
        norms = np.linalg.norm(means, axis=1, keepdims=True)
        means = means / np.maximum(norms, _SMALLEST_NORM)
        self.means = self.add_constant("means", means)
        self.built = True

    def call(self, features, logits):
        features = keras.ops.cast(features, "float32")
        norms = keras.ops.norm(features, axis=-1, keepdims=True)
        unit = features / keras.ops.maximum(norms, _SMALLEST_NORM)
        return -keras.ops.sum(
            keras.ops.square(unit[:, None, :] - self.means[None]), axis=-1
        )

    def get_config(self):
        return {**super().get_config(), "shape": list(self.means.shape)}

    def compute_output_shape(self, features_shape, logits_shape):
        return (features_shape[0], self.means.shape[0])
