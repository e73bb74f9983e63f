"""Weight aligning (Zhao et al., CVPR 2020) as a method of a user's own."""

import dataclasses

import numpy as np
import tensorflow as tf

import keras_incremental as ki


@dataclasses.dataclass(frozen=True)
class WeightedDistillation(ki.objectives.Objective):
    """`(1 - l) CE + l KD`, `l = n_old / n_all`, KD over all old classes."""

    old_units: int
    share: float

    term_names = ("classification", "distillation")
    needs_teacher = True

    def terms(self, batch):
        one_head = tf.zeros_like(batch.head_of_unit)

        def distilled():
            return ki.losses.distillation_loss(
                batch.logits, batch.teacher_logits(), one_head, self.old_units
            )

        loss = ki.losses.classification_loss(batch.units, batch.logits)
        nothing = tf.zeros_like(loss)
        kd = tf.cond(self.old_units > 0, distilled, lambda: nothing)
        return {
            "classification": (1 - self.share) * loss,
            "distillation": self.share * kd,
        }


@dataclasses.dataclass(frozen=True)
class WeightAligning(ki.Method):
    """Trains on new data and exemplars, then scales the new columns."""

    def phases(self, task):
        old, every = task.known_classes, task.model.num_classes
        return [
            ki.methods.Phase(
                name="training",
                epochs=task.epochs,
                sources=lambda: [task.samples, *task.exemplars()],
                objective=WeightedDistillation(old, old / every),
                learning_rate_factor=ki.methods.StepDecay(),
            )
        ]

    def finish(self, task):
        network, new = task.model.network, len(task.model.heads) - 1
        heads = [network.head_weights(i) for i in range(new + 1)]
        norms = [np.linalg.norm(kernel, axis=0) for kernel, _ in heads]
        if new:
            scale = np.concatenate(norms[:-1]).mean() / norms[-1].mean()
            network.set_head_weights(new, scale * heads[-1][0], heads[-1][1])
