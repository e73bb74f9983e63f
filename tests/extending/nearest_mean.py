"""The nearest mean of exemplars (iCaRL's rule) as a user's own method."""

import dataclasses

import numpy as np

import keras_incremental as ki


@dataclasses.dataclass(frozen=True)
class NearestMeanOfExemplars(ki.Method):
    """Trains as EEIL's first stage does; the nearest mean decides."""

    needs_memory = True

    def phases(self, task):
        return [
            ki.methods.Phase(
                name="training",
                epochs=task.epochs,
                sources=lambda: [task.samples, *task.exemplars()],
                objective=ki.objectives.CrossDistilled(task.known_classes),
                learning_rate_factor=ki.methods.StepDecay(),
            )
        ]

    def finish(self, task):
        exemplars = task.memory.samples()
        features = task.features(exemplars)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        units = task.model.classes.to_units(exemplars.labels)
        task.model.score_rule = ki.score_rules.NearestMean(
            [
                features[units == unit].mean(axis=0)
                for unit in range(task.model.num_classes)
            ]
        )
