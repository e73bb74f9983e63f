"""The user's labels outside, units inside: `fit` and all that takes data."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.labels import UNKNOWN_LABEL_MESSAGE, ClassIndex
from keras_incremental.models.incremental_fit import FitRequest, IncrementalFit
from keras_incremental.models.training_model import TrainingModel
from keras_incremental.models.unit_data import (
    evaluation_data,
    to_unit_data,
    unit_validation_data,
    unit_weights,
    with_steps_taken,
)
from keras_incremental.networks import Network
from keras_incremental.score_rules import ScoreRule


class LabelledModel(TrainingModel):
    """Takes the user's labels wherever Keras takes data.

    Args:
        network: from images to features and logits.
        score_rule: from these to the scores that decide.
        classes: labels and names of the network's units.
        name: as in `keras.Model`.
    """

    def __init__(
        self,
        network: Network,
        score_rule: ScoreRule,
        classes: ClassIndex,
        name=None,
    ):
        super().__init__(network, score_rule, name)
        self._classes = classes

    @property
    def num_classes(self) -> int:
        """How many classes the model knows."""
        return len(self._classes)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, in order of arrival."""
        return list(self._classes.names)

    @property
    def labels(self) -> list[int | str]:
        """The user's labels of the classes, in order of arrival."""
        return list(self._classes.labels)

    @property
    def classes(self) -> ClassIndex:
        """The mapping between labels, names and units."""
        return self._classes

    # Inference.

    def predict(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None
    ):
        """As Keras' `predict`: logits `(samples, num_classes)`.

        They are float32 in mixed precision too.
        """
        self._check_taught("predict")
        x, steps = with_steps_taken(x, steps, self.steps_per_execution)
        return super().predict(
            x,
            batch_size=batch_size,
            verbose=verbose,
            steps=steps,
            callbacks=callbacks,
        )

    def classify(self, x, batch_size=None, verbose="auto") -> np.ndarray:
        """Returns the name of the most probable class of each image.

        Args:
            x: raw images, as for `predict`.

        Returns:
            `(samples,)` array of strings.
        """
        logits = self.predict(x, batch_size=batch_size, verbose=verbose)
        return np.array(self.class_names)[logits.argmax(axis=-1)]

    # Training.

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        **options,
    ):
        """As Keras' `fit`, on the user's labels.

        With a `keras_incremental.IncrementalCallback` among `callbacks` it
        learns one task of class-incremental learning on new data. Without one
        it is plain training, by cross-entropy over the classes known or by the
        compiled loss, and a label not known is an error.
        """
        given = keras.tree.flatten(callbacks) if callbacks else []
        steps = [item for item in given if isinstance(item, IncrementalFit)]
        if len(steps) > 1:
            raise ValueError(
                f"fit got {len(steps)} IncrementalCallbacks; expected one."
            )
        if not self.compiled:
            raise ValueError("Call model.compile(optimizer=...) before fit.")
        if steps:
            with self.distribute_strategy.scope():  # what grows is copied too
                return steps[0].run_fit(
                    self,
                    FitRequest(
                        x, y, batch_size, epochs, verbose, given, options
                    ),
                )
        self._check_plain_training("fit without an IncrementalCallback")
        x, y = to_unit_data(self._classes, x, y)
        if options.get("class_weight"):
            options["class_weight"] = unit_weights(
                self._classes, options["class_weight"]
            )
        options["validation_data"], options["validation_steps"] = (
            with_steps_taken(
                unit_validation_data(
                    self._classes, options.get("validation_data")
                ),
                options.get("validation_steps"),
                self.steps_per_execution,
            )
        )
        return self.fit_units(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            **options,
        )

    def fit_units(self, *args, **kwargs):
        """Keras' own `fit`, unchanged: `y` are units, not labels."""
        with self.distribute_strategy.scope(), _clear_label_errors():
            history = super().fit(*args, **kwargs)
        self.average_statistics()
        return history

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        **kwargs,
    ):
        """As Keras' `evaluate`, on the user's labels.

        Raises:
            ValueError: for labels that the model has not been taught.
        """
        options = {
            "batch_size": batch_size,
            "verbose": verbose,
            "sample_weight": sample_weight,
            "callbacks": callbacks,
            "return_dict": return_dict,
            **kwargs,
        }
        if _is_validation_of_fit(kwargs):
            self.average_statistics()
            return super().evaluate(x, y, steps=steps, **options)
        self._check_taught("evaluate")
        x, y = to_unit_data(self._classes, x, y)
        x, steps = evaluation_data(
            self.distribute_strategy, x, steps, self.steps_per_execution
        )
        with _clear_label_errors():
            return super().evaluate(x, y, steps=steps, **options)

    def train_on_batch(
        self,
        x,
        y=None,
        sample_weight=None,
        class_weight=None,
        return_dict=False,
    ):
        """As Keras' `train_on_batch`, on the user's labels: plain training.

        Raises:
            ValueError: for labels that the model has not been taught, or under
                a strategy of several replicas.
        """
        self._check_one_batch("train_on_batch")
        self._check_plain_training("train_on_batch")
        if class_weight:
            class_weight = unit_weights(self._classes, class_weight)
        x, y = to_unit_data(self._classes, x, y)
        return super().train_on_batch(
            x, y, sample_weight, class_weight, return_dict
        )

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """As Keras' `test_on_batch`, on the user's labels.

        Raises:
            ValueError: as `train_on_batch`.
        """
        self._check_one_batch("test_on_batch")
        x, y = to_unit_data(self._classes, x, y)
        return super().test_on_batch(x, y, sample_weight, return_dict)

    def _check_plain_training(self, action: str) -> None:
        self._check_taught(action)
        trained = self.network.trained_units
        if trained != slice(0, self.num_classes):
            raise ValueError(
                f"{action} would train the classes {self.labels[trained][:10]} "
                "alone, and change a branch that has been trained. Call fit "
                "with IncrementalCallback(method=PartialSharing()) and new "
                "classes."
            )

    def _check_one_batch(self, action: str) -> None:
        self._check_taught(action)
        strategy = self.distribute_strategy
        if strategy.num_replicas_in_sync > 1:
            raise ValueError(
                f"{action} under a {type(strategy).__name__}: its "
                f"{strategy.num_replicas_in_sync} replicas would each take the "
                "whole batch. Call fit or evaluate, which split it."
            )

    def _check_taught(self, action: str) -> None:
        if not self.num_classes:
            raise ValueError(
                f"{action}: the model knows no classes yet. Teach it by a fit "
                "with an IncrementalCallback, or call add_classes(labels)."
            )


@contextlib.contextmanager
def _clear_label_errors():
    """Turns what a label mapping raises in a graph into a ValueError."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        start = error.message.find(UNKNOWN_LABEL_MESSAGE)
        if start < 0:
            raise
        raise ValueError(error.message[start:].splitlines()[0]) from None


def _is_validation_of_fit(kwargs) -> bool:
    """Whether Keras' `fit` calls `evaluate` on data it has prepared.

    Such data holds units already. Keras marks the call by a keyword of its
    own, which is private; there is no public sign of it.
    """
    return bool(kwargs.get("_use_cached_eval_dataset"))
