"""One scale and one bias for each head."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_incremental.score_rules.score_rule import ScoreRule


@keras.saving.register_keras_serializable(package="keras_incremental")
class AffinePerHead(ScoreRule):
    """Scores `scale[h] * logits + bias[h]`, `h` the head of each class.

    Heads that were trained apart do not compare on one scale; this puts them on
    one. Calibration of branches, weight aligning and bias correction are such
    rules.

    Source: "calibration", Sarwar, Ankit and Roy, IEEE Access 8, 2020
    (arXiv:1712.02719); BiC, Wu et al., CVPR 2019 (arXiv:1905.13260), Eq. 5.

    Args:
        heads: number of classes of each head, in order.
        scales: One for each head, above 0, so that the order of classes in a
            head stays; by default 1.
        biases: One for each head; by default 0.
        **kwargs: those of `keras.layers.Layer`.

    Input shapes: features `(batch, dim)` and logits `(batch, units)`. Output
    shape: `(batch, units)`.

    Raises:
        ValueError: for a scale that is not above 0, or another number of scales
            or biases than of heads.

    >>> rule = AffinePerHead([2, 1], scales=[1.0, 0.5], biases=[0.0, 3.0])
    >>> rule(np.zeros((1, 4)), np.array([[1.0, 2.0, 8.0]])).numpy().tolist()
    [[1.0, 2.0, 7.0]]
    """

    def __init__(
        self,
        heads: Iterable[int],
        scales: ArrayLike | None = None,
        biases: ArrayLike | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.head_sizes = [int(units) for units in heads]
        scales = np.ones(len(heads)) if scales is None else np.array(scales)
        biases = np.zeros(len(heads)) if biases is None else np.array(biases)
        if not scales.shape == biases.shape == (len(self.head_sizes),):
            raise ValueError(
                f"AffinePerHead got {len(self.head_sizes)} heads, scales of "
                f"shape {scales.shape} and biases of shape {biases.shape}; "
                "expected one number of each for each head."
            )
        if not (scales > 0).all():
            raise ValueError(f"scales={scales.tolist()}; expected all above 0.")
        self.scales = self.add_constant("scales", scales)
        self.biases = self.add_constant("biases", biases)
        self.built = True

    def call(self, features, logits):
        scales = keras.ops.repeat(self.scales, self.head_sizes)
        biases = keras.ops.repeat(self.biases, self.head_sizes)
        return logits * keras.ops.cast(scales, logits.dtype) + keras.ops.cast(
            biases, logits.dtype
        )

    def grown(self, units: int) -> "AffinePerHead":
        """Returns the rule with a scale of 1 and a bias of 0 for a new head."""
        return AffinePerHead(
            [*self.head_sizes, units],
            [*keras.ops.convert_to_numpy(self.scales), 1.0],
            [*keras.ops.convert_to_numpy(self.biases), 0.0],
        )

    def get_config(self):
        return {**super().get_config(), "heads": self.head_sizes}
