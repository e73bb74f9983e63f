"""What a model predicts for labelled images, by its logits and its scores."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_incremental import metrics
from keras_incremental.models import IncrementalClassifier
from keras_incremental.progress import with_progress


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Logits and scores of labelled images.

    Attributes:
        units: `(samples,)`, the true class of each image.
        logits: `(samples, num_classes)`, before the score rule.
        scores: `(samples, num_classes)`; the highest one decides.
        task_of_unit: `(num_classes,)`, the task that each class was learned in.
    """

    units: np.ndarray
    logits: np.ndarray
    scores: np.ndarray
    task_of_unit: np.ndarray

    def __repr__(self):
        return (
            f"<Predictions: {len(self.units)} images, {len(self.task_of_unit)} "
            f"classes, accuracy {self.accuracy:.1%}>"
        )

    @property
    def classes(self) -> np.ndarray:
        """The predicted class of each image, `(samples,)`."""
        return self.scores.argmax(axis=-1)

    @property
    def accuracy(self) -> float:
        """Of the scores, all classes competing."""
        return metrics.accuracy(self.classes, self.units)

    @property
    def uncalibrated_accuracy(self) -> float:
        """Of the logits, all classes competing."""
        return metrics.accuracy(self.logits.argmax(axis=-1), self.units)

    @property
    def task_aware_classes(self) -> np.ndarray:
        """The best class by the logits of the true class's own task."""
        return metrics.task_aware_predictions(
            self.logits, self.units, self.task_of_unit
        )

    def of_tasks_from(self, first: int) -> "Predictions":
        """Returns those of the images whose class was learned in late tasks.

        Args:
            first: the first of these tasks.
        """
        rows = self.task_of_unit[self.units] >= first
        return dataclasses.replace(
            self,
            units=self.units[rows],
            logits=self.logits[rows],
            scores=self.scores[rows],
        )


def predict(
    model: IncrementalClassifier,
    dataset: tf.data.Dataset,
    batch_size: int = 256,
    verbose: int = 0,
) -> Predictions:
    """Runs a model on labelled images.

    Args:
        model: the classifier.
        dataset: single raw images with the user's labels, one at least.
        batch_size: images per call of the network.
        verbose: 0 silent, else with a progress bar if it takes long.
    """
    parts, labels = [], []
    batches = dataset.batch(batch_size).prefetch(1)
    batches = with_progress(batches, None, "evaluating", verbose=verbose)
    for images, batch_labels in batches:
        parts.append(model.logits_and_scores(images, batch_size))
        labels.append(batch_labels.numpy())
    logits, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    sizes = [head.stop - head.start for head in model.heads]
    return Predictions(
        model.classes.to_units(np.concatenate(labels)),
        logits,
        scores,
        np.repeat(np.arange(len(sizes)), sizes),
    )
