"""A Keras model that learns new classes from `fit` to `fit`."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.backbones import as_feature_extractor
from keras_incremental.labels import UNKNOWN_LABEL_MESSAGE, ClassIndex
from keras_incremental.layers import ExpandableDense
from keras_incremental.models.distilling_model import DistillingModel
from keras_incremental.models.incremental_fit import FitRequest, IncrementalFit
from keras_incremental.models.unit_data import (
    to_unit_data,
    unit_validation_data,
    unit_weights,
)


@keras.saving.register_keras_serializable(package="keras_incremental")
class IncrementalClassifier(DistillingModel):
    """An image classifier: a backbone and a head that takes new classes.

    With an `IncrementalCallback` among its callbacks, `fit` is one step of
    class-incremental learning; without one, `fit` is Keras' own. `fit` and
    `evaluate` take the user's labels; `predict` gives logits, one column a
    class in order of arrival.

    Args:
        backbone: a Keras model from raw images `(batch, h, w, c)` to feature
            vectors, or to feature maps, which are then averaged.
        capacity: classes that the head has room for before its variables
            grow and functions must be traced again; it then doubles.
        name: as in `keras.Model`.

    Raises:
        TypeError, ValueError: for a backbone that is no such model.

    >>> import keras_incremental as ki
    >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
    >>> model.add_classes([40, 7], ["forty", "seven"])
    >>> model.class_names, model.predict(np.ones((1, 8, 8, 1)), verbose=0).shape
    (['forty', 'seven'], (1, 2))
    """

    def __init__(self, backbone, capacity=128, name=None):
        head = ExpandableDense(capacity=capacity, name="head")
        super().__init__(as_feature_extractor(backbone), head, name)
        self._classes = ClassIndex()

    @classmethod
    def _from_parts(cls, backbone, head, classes, name):
        model = cls.__new__(cls)
        DistillingModel.__init__(model, backbone, head, name)
        model._classes = classes
        return model

    # Classes.

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

    def add_classes(self, labels, names=None) -> None:
        """Adds a head for new classes, untrained; nothing else changes.

        An `IncrementalCallback` does this by itself. Classes added here count
        as known to it, so that a distilling method distils their head as well:
        train them by a plain `fit` first.

        Args:
            labels: the new labels, integers or strings.
            names: their names; by default their own text.

        Raises:
            ValueError: for none, or for labels or names that are known.
        """
        labels = list(labels)
        if not labels:
            raise ValueError("add_classes got no labels; expected 1 or more.")
        self._classes.add(labels, names)
        self.reserve(len(labels))
        self.head.expand(len(labels))

    def drop_heads(self, num_heads: int) -> None:
        """Takes back the heads, and their classes, after `num_heads`."""
        self.head.truncate(num_heads)
        self._classes.truncate(self.head.units)

    # Inference.

    def predict(self, x, batch_size=None, verbose="auto", **options):
        """As Keras' `predict`: logits `(samples, num_classes)`."""
        self._check_taught("predict")
        return super().predict(
            x, batch_size=batch_size, verbose=verbose, **options
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
        is one step of class-incremental learning on new data. Without one it
        is plain training, by cross-entropy over the classes known or by the
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
            return steps[0].run_fit(
                self,
                FitRequest(x, y, batch_size, epochs, verbose, given, options),
            )
        self._check_taught("fit without an IncrementalCallback")
        x, y = to_unit_data(self._classes, x, y)
        if options.get("class_weight"):
            options["class_weight"] = unit_weights(
                self._classes, options["class_weight"]
            )
        options["validation_data"] = unit_validation_data(
            self._classes, options.get("validation_data")
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
        with _clear_label_errors():
            return super().fit(*args, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """As Keras' `evaluate`, on the user's labels.

        Raises:
            ValueError: for labels that the model has not been taught.
        """
        if _is_validation_of_fit(kwargs):
            return super().evaluate(x, y, *args, **kwargs)
        self._check_taught("evaluate")
        x, y = to_unit_data(self._classes, x, y)
        with _clear_label_errors():
            return super().evaluate(x, y, *args, **kwargs)

    def get_config(self):
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "head": keras.saving.serialize_keras_object(self.head),
            "labels": self.labels,
            "class_names": self.class_names,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        backbone, head = (
            keras.saving.deserialize_keras_object(
                config[part], custom_objects=custom_objects
            )
            for part in ("backbone", "head")
        )
        classes = ClassIndex(config["labels"], config["class_names"])
        return cls._from_parts(backbone, head, classes, config["name"])

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
        raise ValueError(error.message[start:]) from None


def _is_validation_of_fit(kwargs) -> bool:
    """Whether Keras' `fit` calls `evaluate` on data it has prepared.

    Such data holds units already. Keras marks the call by a keyword of its
    own, which is private; there is no public sign of it.
    """
    return bool(kwargs.get("_use_cached_eval_dataset"))
