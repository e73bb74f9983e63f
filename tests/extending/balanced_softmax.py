"""Balanced softmax (Ren et al., NeurIPS 2020) as a method of a user's own."""

import dataclasses

import numpy as np
import tensorflow as tf

import keras_incremental as ki


@dataclasses.dataclass(frozen=True)
class BalancedSoftmax(ki.objectives.Objective):
    """Cross-entropy of `z + log n_c`, with `n_c` images of class `c`."""

    images_per_class: np.ndarray

    def terms(self, batch):
        prior = tf.math.log(tf.cast(self.images_per_class, tf.float32))
        logits = tf.cast(batch.logits, tf.float32) + prior
        loss = ki.losses.classification_loss(batch.units, logits)
        return {"classification": loss}


@dataclasses.dataclass(frozen=True)
class BalancedReplay(ki.Method):
    """One stage on new data and all exemplars; plain logits decide."""

    needs_memory = True

    def phases(self, task):
        sources = [task.samples, *task.exemplars()]
        counts = np.maximum(task.images_per_class(sources), 1)
        return [
            ki.methods.Phase(
                name="training",
                epochs=task.epochs,
                sources=lambda: sources,
                objective=BalancedSoftmax(counts),
                learning_rate_factor=ki.methods.StepDecay(),
            )
        ]
