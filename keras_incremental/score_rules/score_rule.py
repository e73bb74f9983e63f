"""How a class is decided, from the features and logits of an image."""

from typing import Any

import keras
import tensorflow as tf
from numpy.typing import ArrayLike


@keras.saving.register_keras_serializable(package="keras_incremental")
class ScoreRule(keras.layers.Layer):
    """Turns features and logits into the scores that decide the class.

    The class with the highest score is the prediction; a softmax of the scores
    is what a published model calls probabilities. A rule is part of the model:
    it is saved, exported, backed up and published with it. The train step does
    not see it.

    This class is the simplest rule: the logits are the scores.

    Args:
        **kwargs: those of `keras.layers.Layer`.

    Input shapes: features `(batch, dim)` and logits `(batch, units)`. Output
    shape: `(batch, units)`.

    >>> import numpy as np
    >>> ScoreRule()(np.ones((1, 3)), np.ones((1, 2))).shape
    TensorShape([1, 2])
    """

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.supports_jit = False

    def add_constant(
        self, name: str, values: ArrayLike, dtype: str = "float32"
    ) -> tf.Variable:
        """Returns a weight with these values, which is not trained.

        It is saved with the rule, and of that type in mixed precision too.
        """
        return self.add_weight(
            name=name,
            shape=values.shape,
            dtype=dtype,
            initializer=lambda shape, dtype: keras.ops.cast(values, dtype),
            trainable=False,
            autocast=False,
        )

    @property
    def kept_bytes(self) -> int:
        """Bytes of what it keeps to learn from, which no image needs."""
        return 0

    def call(self, features, logits):
        return logits

    def grown(self, units: int) -> "ScoreRule":
        """Returns the rule for as many more classes, until a method sets one.

        Args:
            units: how many classes have arrived.

        Returns:
            by default the logits, which decide while the new classes are being
            learned.
        """
        return self if type(self) is ScoreRule else ScoreRule()

    def without(self, units: list[int]) -> "ScoreRule":
        """Returns the rule as it would be had it never seen some classes.

        Args:
            units: of the classes.

        Raises:
            ValueError: by default: what was trained cannot be taken out.
        """
        raise ValueError(
            "These classes cannot be forgotten: the network was trained on "
            "their images, and that cannot be taken back. The classes of a "
            "model taught by Analytic() can."
        )

    def compute_output_shape(self, features_shape, logits_shape):
        return logits_shape
