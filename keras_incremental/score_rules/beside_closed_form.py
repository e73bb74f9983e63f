"""Trained logits, and beside them a closed form of features that stay."""

from typing import Any

import keras

from keras_incremental.score_rules.closed_form import ClosedForm
from keras_incremental.score_rules.score_rule import ScoreRule


@keras.saving.register_keras_serializable(package="keras_incremental")
class BesideClosedForm(ScoreRule):
    """Scores `z + weight * c(f)`, `z` the logits, `c` a closed form.

    `c` is solved from sums over all images ever seen, and so forgets nothing,
    where the first of the features `f` come from layers that never change; the
    logits know what was trained since. The two err on different images.

    Source: ours.

    Args:
        closed_form: of the first `closed_form.dim` features.
        weight: of its scores.
        **kwargs: those of `keras.layers.Layer`.

    Input shapes: features `(batch, dim or more)` and logits `(batch, units)`.
    Output shape: `(batch, units)`, float32.

    >>> from keras_incremental.closed_form import NearestClassMean
    >>> closed_form = ClosedForm(NearestClassMean(), dim=2)
    >>> closed_form = closed_form.plus(np.eye(2), np.array([0, 1]), classes=2)
    >>> rule = BesideClosedForm(closed_form, weight=2.0)
    >>> rule(np.eye(2, 3), np.array([[7.0, 0.0], [0.0, 0.0]])).numpy().tolist()
    [[8.0, -1.0], [-1.0, 1.0]]
    """

    def __init__(
        self, closed_form: ClosedForm, weight: float = 1.0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.closed_form, self.weight = closed_form, float(weight)
        self.built = True

    @property
    def kept_bytes(self):
        return self.closed_form.kept_bytes

    def call(self, features, logits):
        known = features[:, : self.closed_form.dim]
        scores = self.closed_form(known, logits)
        return keras.ops.cast(logits, "float32") + self.weight * scores

    def grown(self, units: int) -> "BesideClosedForm":
        """Returns the rule with the logits alone, and the sums kept."""
        classes = self.closed_form.bias.shape[0] + units
        return BesideClosedForm(self.closed_form.with_classes(classes), 0.0)

    def get_config(self):
        closed_form = keras.saving.serialize_keras_object(self.closed_form)
        return {
            **super().get_config(),
            "closed_form": closed_form,
            "weight": self.weight,
        }

    @classmethod
    def from_config(cls, config):
        closed_form = keras.saving.deserialize_keras_object(
            config["closed_form"]
        )
        if not isinstance(closed_form, ClosedForm):
            raise ValueError(f"{closed_form!r} is no ClosedForm.")
        return cls(**{**config, "closed_form": closed_form})
