"""The user's labels outside, units inside: `fit` and all that takes data."""

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.labels import UNKNOWN_LABEL_MESSAGE, ClassIndex, listed
from keras_incremental.models.classification import (
    as_image_batch,
    check_scale,
    ranked,
)
from keras_incremental.models.incremental_fit import FitRequest, IncrementalFit
from keras_incremental.models.training_model import TrainingModel
from keras_incremental.models.unit_data import (
    evaluation_data,
    to_unit_data,
    unit_validation_data,
    unit_weights,
)
from keras_incremental.networks import Network
from keras_incremental.score_rules import ScoreRule

_MONITORING = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.ReduceLROnPlateau,
)


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

    def __repr__(self):
        return (
            f"<{type(self).__name__} {self.name}: {self.num_classes} classes: "
            f"{listed(self.class_names)}>"
        )

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
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Sequence | keras.callbacks.Callback | None = None,
    ) -> np.ndarray:
        """As Keras' `predict`: logits `(samples, num_classes)`.

        They are float32 in mixed precision too.
        """
        self._check_taught("predict")
        return super().predict(x, batch_size, verbose, steps, callbacks)

    def classify(
        self,
        x: Any,
        top_k: int | None = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
    ) -> Any:
        """Names what images show.

        Args:
            x: raw images: a batch as for `predict`, one image `(height, width,
                channels)`, a path, a Pillow image, or a list of the last three.
                Images of another size than the model's are resized and cropped
                as `ClassIncrementalScenario.from_directory` does.
            top_k: how many classes to name, 1 to `num_classes`, with their
                probabilities; `None` for the most probable name alone.
            batch_size, verbose: as for `predict`.

        Returns:
            With `top_k`, pairs `(name, probability)`, the most probable first,
            which print as "cat 98.1%, dog 1.5%"; a list of these for several
            images. Without it a name, or a `(samples,)` array of names.

        Raises:
            ValueError: if the model knows no classes, or `top_k` is out of
                range; for images of another number of channels, or of 0 to 1
                where the model rescales 0 to 255 itself.
            FileNotFoundError: if a file does not exist.

        >>> import keras_incremental as ki
        >>> keras.utils.set_random_seed(0)
        >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
        >>> model.add_classes([40, 7], ["cat", "dog"])
        >>> image = np.zeros((8, 8, 1), "uint8")
        >>> print(model.classify(image, top_k=2, verbose=0))
        cat 50.0%, dog 50.0%
        """
        self._check_taught("classify")
        if top_k is not None and top_k not in range(1, self.num_classes + 1):
            raise ValueError(
                f"top_k={top_k!r}; expected an integer of 1 to "
                f"{self.num_classes}, the number of classes that the model "
                "knows, or None for the most probable name alone."
            )
        is_single = False
        if not isinstance(x, (tf.data.Dataset, keras.utils.PyDataset)):
            x, is_single = as_image_batch(x, self.input_shape[1:])
            check_scale(x, self.network.base().backbone)
        scores = self.predict(x, batch_size=batch_size, verbose=verbose)
        if top_k is not None:
            results = ranked(scores, self.class_names, top_k)
            return results[0] if is_single else results
        names = np.array(self.class_names)[scores.argmax(axis=-1)]
        return names.item() if is_single else names

    # Training.

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Sequence | keras.callbacks.Callback | None = None,
        **options: Any,
    ) -> keras.callbacks.History:
        """As Keras' `fit`, on the user's labels.

        With a `keras_incremental.IncrementalCallback` among `callbacks` it
        learns one task of class-incremental learning on new data. Without one
        it is plain training, by cross-entropy over the classes known or by the
        compiled loss, and a label not known is an error.
        """
        given = keras.tree.flatten(callbacks) if callbacks else []
        _let_accuracy_rise(given)
        steps = [item for item in given if isinstance(item, IncrementalFit)]
        if len(steps) > 1:
            raise ValueError(
                f"fit got {len(steps)} IncrementalCallbacks; expected one."
            )
        if steps and not (self.compiled or steps[0].needs_optimizer):
            self.compile(optimizer="sgd")  # has no state to be saved
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
        self._check_plain_training()
        x, y = to_unit_data(self._classes, x, y)
        if options.get("class_weight"):
            options["class_weight"] = unit_weights(
                self._classes, options["class_weight"]
            )
        options["validation_data"] = unit_validation_data(
            self._classes, options.get("validation_data")
        )
        return self.fit_units(
            x, y, batch_size, epochs, verbose, callbacks, **options
        )

    def fit_units(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Keras' own `fit`, unchanged: `y` are units, not labels."""
        with self.distribute_strategy.scope(), _clear_label_errors():
            history = super().fit(*args, **kwargs)
        self.average_statistics()
        return history

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Sequence | keras.callbacks.Callback | None = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As Keras' `evaluate`, on the user's labels.

        Raises:
            ValueError: for labels that the model has not been taught.
        """
        # Keras marks the validation of `fit`, on data that hold units already,
        # by a keyword of its own; there is no public sign of it.
        if kwargs.get("_use_cached_eval_dataset"):
            self.average_statistics()
        else:
            self._check_taught("evaluate")
            x, y = to_unit_data(self._classes, x, y)
            x, steps = evaluation_data(self.distribute_strategy, x, steps)
        with _clear_label_errors():
            return super().evaluate(
                x,
                y,
                batch_size,
                verbose,
                sample_weight,
                steps,
                callbacks,
                return_dict,
                **kwargs,
            )

    def train_on_batch(self, *args, **kwargs):
        """Refused, as `test_on_batch` is: `fit` and `evaluate` take labels.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "An IncrementalClassifier takes single batches by fit and evaluate "
            "alone: what Keras' train_on_batch and test_on_batch take are "
            "units, not labels."
        )

    test_on_batch = train_on_batch

    def _check_plain_training(self) -> None:
        self._check_taught("fit without an IncrementalCallback")
        trained = self.network.trained_units
        if trained != slice(0, self.num_classes):
            raise ValueError(
                "fit without an IncrementalCallback would train the classes "
                f"{self.labels[trained][:10]} alone, and change a branch that "
                "has been trained. Call fit with "
                "IncrementalCallback(method=PartialSharing()) and new classes."
            )

    def _check_taught(self, action: str) -> None:
        if not self.num_classes:
            raise ValueError(
                f"{action}: the model knows no classes yet. Teach it by a fit "
                "with an IncrementalCallback, or call add_classes(labels)."
            )


def _let_accuracy_rise(callbacks: Iterable) -> None:
    """Tells callbacks that monitor the accuracy that more of it is better.

    Keras finds that out by itself only for metrics passed to `compile`.
    """
    for item in callbacks:
        mode = getattr(item, "mode", None)  # older Keras has found it out
        monitors = isinstance(item, _MONITORING) and mode == "auto"
        if monitors and item.monitor in ("accuracy", "val_accuracy"):
            item.mode = "max"


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
