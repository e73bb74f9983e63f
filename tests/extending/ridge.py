"""Ridge regression on a network frozen after its first task."""

import dataclasses

import keras
import numpy as np

import keras_incremental as ki


@keras.saving.register_keras_serializable(package="extending")
class RidgeRule(ki.score_rules.ScoreRule):
    """Scores `(f, 1) W`, with the sums `G = sum f f'` and `Q = sum f y'`."""

    def __init__(self, dim, units, **kwargs):
        super().__init__(**kwargs)
        for name, columns in (("G", dim), ("Q", units), ("W", units)):
            options = {"dtype": "float64", "initializer": "zeros"}
            weight = self.add_weight((dim, columns), name=name, **options)
            weight.trainable = False
            setattr(self, name, weight)
        self.built = True

    def call(self, features, logits):
        f = keras.ops.pad(features, [[0, 0], [0, 1]], constant_values=1)
        return f @ keras.ops.cast(self.W, f.dtype)

    def add(self, f, units):
        self.G.assign_add(f.T @ f)
        self.Q.assign_add(f.T @ np.eye(self.Q.shape[1])[units])
        G = self.G.numpy()
        G += 0.01 * np.trace(G) / len(G) * np.eye(len(G))
        self.W.assign(np.linalg.solve(G, self.Q))

    def grown(self, units):
        rule = RidgeRule(self.G.shape[0], self.Q.shape[1] + units)
        rule.G.assign(self.G)
        rule.Q.assign(np.pad(self.Q, [(0, 0), (0, units)]))
        return rule

    def get_config(self):
        dim, units = self.Q.shape
        return {**super().get_config(), "dim": dim, "units": units}


@dataclasses.dataclass(frozen=True)
class Ridge(ki.Method):
    """Trains the network on the first task; solves, without epochs, then."""

    def phases(self, task):
        base = ki.methods.Phase("base", task.epochs, lambda: [task.samples])
        solve = ki.methods.ClosedFormPhase("ridge", lambda: self._add(task))
        return [solve] if task.known_classes else [base, solve]

    def _add(self, task):
        model, f = task.model, task.features(task.samples).astype(float)
        f = np.pad(f, [(0, 0), (0, 1)], constant_values=1)
        if not task.known_classes:
            model.score_rule = RidgeRule(f.shape[1], model.num_classes)
        model.score_rule.add(f, model.classes.to_units(task.samples.labels))
