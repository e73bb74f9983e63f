"""A Keras model that learns new classes from `fit` to `fit`."""

import copy
from collections.abc import Sequence

import keras

from keras_incremental._types import Labels, PathLike
from keras_incremental.backbones import as_feature_extractor
from keras_incremental.files import as_path, replacing
from keras_incremental.labels import ClassIndex
from keras_incremental.models.adoption import class_index, split_classifier
from keras_incremental.models.copies import copy_state
from keras_incremental.models.exportable_model import ExportableModel
from keras_incremental.models.optimizer_start import fresh_optimizer
from keras_incremental.networks import (
    FrozenTrunkNetwork,
    Network,
    SingleNetwork,
)
from keras_incremental.score_rules import ScoreRule


@keras.saving.register_keras_serializable(package="keras_incremental")
class IncrementalClassifier(ExportableModel):
    """An image classifier: a backbone and a head that takes new classes.

    With an `IncrementalCallback` among its callbacks, `fit` is one step of
    class-incremental learning; without one, `fit` is Keras' own. `fit` and
    `evaluate` take the user's labels; `predict` gives logits, one column a
    class in order of arrival.

    Args:
        backbone: A Keras model from raw images `(batch, h, w, c)` to feature
            vectors, or to feature maps, which are then averaged. The head
            takes over the `kernel_regularizer` of its last layer with one.
        capacity: classes that the head has room for before its variables
            grow and functions must be traced again; it then doubles.
        branch_at: where to cut the backbone for a method that grows branches,
            such as `PartialSharing`: the name of the last layer to share, or
            the fraction of the weight layers to share at least, 0 to 1;
            `keras_incremental.sharing.cut_points(backbone)` lists the legal
            places.
        freeze_trunk: whether the layers up to `branch_at` are frozen from the
            first task on, as it suits pretrained ones. Their outputs are
            cached, so that an epoch of any method costs the layers behind them
            alone; see `copies` of the methods.
        name: as in `keras.Model`.

    Raises:
        TypeError, ValueError: if `backbone` is not a Keras model from images to
            features.

    >>> import keras_incremental as ki
    >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
    >>> model.add_classes([40, 7], ["forty", "seven"])
    >>> model.class_names, model.predict(np.ones((1, 8, 8, 1)), verbose=0).shape
    (['forty', 'seven'], (1, 2))
    """

    def __init__(
        self,
        backbone: keras.Model,
        capacity: int = 128,
        branch_at: str | float | None = None,
        freeze_trunk: bool = False,
        name: str | None = None,
    ):
        backbone = as_feature_extractor(backbone)
        kind = FrozenTrunkNetwork if freeze_trunk else SingleNetwork
        network = kind(
            backbone, branch_at=branch_at, capacity=capacity, name="network"
        )
        rule = ScoreRule(name="score_rule")
        super().__init__(network, rule, ClassIndex(), name)

    @classmethod
    def from_classifier(
        cls,
        trained: keras.Model,
        class_names: Sequence[str],
        labels: Sequence | None = None,
        capacity: int = 128,
        branch_at: str | float | None = None,
        freeze_trunk: bool = False,
        name: str | None = None,
    ) -> "IncrementalClassifier":
        """Returns a model that goes on from a trained Keras classifier.

        Its logits equal those of `trained`, before the softmax if there is
        one, to float rounding. All layers are cloned, so that `trained` stays
        as it is; layers that it has frozen stay frozen, unless its last one
        is frozen too. Compile the model before `fit`.

        Pass any old data that remains to `ExemplarMemory.add_from`. If there is
        none, start with an empty memory: `EEIL` then distils the old classes
        on the new images alone. That helps to tell the old classes from one
        another, not from new ones: expect most images of old classes to be
        taken for new ones, until the memory gets a few exemplars of each.

        Args:
            trained: a built Functional or Sequential classifier, with logits
                or softmax probabilities as its output: dense layers at its
                end, or a convolution of one position, as in MobileNetV3.
            class_names: the names of its classes, in the order of its outputs.
            labels: their labels; by default 0, 1, ...
            capacity: as for the class; doubled until the classes have room.
            branch_at, freeze_trunk: as for the class.
            name: as in `keras.Model`.

        Raises:
            TypeError: if `trained` is no Keras model.
            ValueError: if `trained` is no such classifier, or the names or
                labels are no text, duplicated or not one for each output.

        >>> trained = keras.Sequential(
        ...     [
        ...         keras.Input((8, 8, 1)),
        ...         keras.layers.Flatten(),
        ...         keras.layers.Dense(3, activation="softmax"),
        ...     ]
        ... )
        >>> model = IncrementalClassifier.from_classifier(
        ...     trained, class_names=["cat", "dog", "fox"])
        >>> model.labels, model.predict(np.ones((1, 8, 8, 1)), verbose=0).shape
        ([0, 1, 2], (1, 3))
        """
        classes = class_index(class_names, labels)
        backbone, head = split_classifier(trained, len(classes), capacity)
        kind = FrozenTrunkNetwork if freeze_trunk else SingleNetwork
        network = kind(backbone, head, branch_at, name="network")
        rule = ScoreRule(name="score_rule")
        return cls._of_parts(network, rule, classes, name)

    @classmethod
    def _of_parts(cls, network, score_rule, classes, name):
        model = cls.__new__(cls)
        ExportableModel.__init__(model, network, score_rule, classes, name)
        return model

    def add_classes(
        self,
        labels: Labels,
        names: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> None:
        """Adds a head for new classes, untrained; nothing else changes.

        An `IncrementalCallback` does this by itself. Classes added here count
        as known to it, so that a distilling method distils their head as well:
        train them by a plain `fit` first.

        Args:
            labels: the new labels, integers of 0 or more, or strings.
            names: their names; by default their own text.
            seed: Seed for initialising the new head.

        Raises:
            ValueError: for no labels, or for labels or names that are known.
        """
        labels = list(labels)
        if not labels:
            raise ValueError("add_classes got no labels; expected 1 or more.")
        self._classes.add(labels, names)
        with self.distribute_strategy.scope():
            self.network.grow(len(labels), seed)
            self.follow_network()
            self.score_rule = self.score_rule.grown(len(labels))

    def remove_classes(self, num_heads: int) -> None:
        """Removes the heads after the first `num_heads`, and their classes.

        The logits decide from then on, until a method sets a score rule.
        """
        self.network = self.network.shrink(num_heads)
        self.follow_network()
        self._classes.truncate(self.network.units)
        self.score_rule = ScoreRule()

    def forget_classes(self, labels: Labels) -> None:
        """Takes classes out, as if the model had never seen their images.

        The sums of a closed form are sums over classes, so those of a class can
        be taken out exactly (`keras_incremental.Analytic`). What the network
        itself was trained on, before or by `Analytic(adapt=True)`, stays in
        its weights, and exemplars stay in the memory.

        Args:
            labels: of the classes.

        Raises:
            ValueError: for an unknown label, for all labels, or if the model
                was trained on their images. The model is as before.
        """
        units = sorted(set(self._classes.to_units(labels).tolist()))
        if len(units) == self.num_classes:
            raise ValueError(
                f"forget_classes got all {len(units)} classes; expected some."
            )
        with self.distribute_strategy.scope():
            rule = self.score_rule.without(units)
            self.network.forget(units)
            self._classes.remove(units)
            self.follow_network()
            self.score_rule = rule

    @property
    def heads(self) -> list[slice]:
        """The units of each step's classes, in order of arrival."""
        return self.network.heads

    @property
    def backbone(self) -> keras.Model:
        """The network from images to features that was there first."""
        return self.network.base().backbone

    @property
    def branch_at(self) -> str | float | None:
        """The layer where the backbone is cut, 0.0, 1.0, or `None`."""
        return self.network.base().branch_at

    def with_branch_at(self, branch_at: str | float) -> "IncrementalClassifier":
        """Returns a copy of the model that is cut at another place.

        Args:
            branch_at: as for the class.

        Raises:
            ValueError: if the model has branches, or cannot be cut there.
        """
        if not isinstance(self.network, SingleNetwork):
            raise ValueError(
                "The model has branches, which belong to its branch point "
                f"{self.branch_at!r}. Cut it before the first branch."
            )
        config = self.get_config()
        config["network"]["config"]["branch_at"] = branch_at
        model = self.from_config(config)
        copy_state(model, self)
        if self.compiled:
            options = keras.saving.deserialize_keras_object(
                {**self.get_compile_config(), "optimizer": None}
            )
            options["optimizer"] = fresh_optimizer(
                self.optimizer,
                self.trainable_variables,
                model.trainable_variables,
            )
            model.compile(**options)
            model.optimizer.build(model.trainable_variables)
        return model

    # State.

    def state_variables(self) -> list:
        """Returns all variables that make up the classifier, in a fixed order.

        Those of the optimizer and of metrics are not among them.
        """
        return [*self.network.state_variables(), *self.score_rule.variables]

    def structure(self) -> dict:
        """Returns classes, network and score rule as JSON types, no weights."""
        return {
            "labels": self.labels,
            "class_names": self.class_names,
            "network": keras.saving.get_registered_name(type(self.network)),
            "heads": self.network.structure(),
            "score_rule": keras.saving.serialize_keras_object(self.score_rule),
        }

    def restore_structure(self, structure: dict) -> None:
        """Takes over the structure of another state of the same run.

        The weights are left as they are, or as they are initialised.
        """
        structure = copy.deepcopy(structure)  # Keras changes what it reads.
        kind = keras.saving.get_registered_object(structure["network"])
        if not (isinstance(kind, type) and issubclass(kind, Network)):
            raise ValueError(
                f"{structure['network']!r} is no registered Network. Import "
                "the module that defines it."
            )
        base = self.network.base()
        self._classes.truncate(0)
        self._classes.add(structure["labels"], structure["class_names"])
        self.network = kind.with_structure(base, structure["heads"])
        self.score_rule = keras.saving.deserialize_keras_object(
            structure["score_rule"]
        )
        _check_parts(self.network, self.score_rule, self._classes)

    def finalize_state(self) -> None:
        """Makes all that is computed from the variables follow their values.

        Call it after values have been assigned to `state_variables()`.
        """
        self.network.finalize_state()
        self.reset_inference()

    def save(
        self,
        filepath: PathLike,
        overwrite: bool = True,
        zipped: bool | None = None,
        **options: object,
    ) -> None:
        """As Keras' `save`, but a file is there as a whole or not at all.

        It is written beside `filepath`, flushed to disk and renamed: on an
        error, or if the process is killed, an older file is as it was. That
        has its mode, and a symbolic link stays one. Missing folders are made.

        Args:
            filepath: `str` or path-like that ends in `.keras`, local or
                elsewhere, such as `gs://bucket/model.keras`.
            overwrite: Whether an older file may be replaced.
            zipped: As Keras' own; a folder of files is refused, as it cannot be
                replaced as a whole.
            **options: As Keras' own.

        Raises:
            ValueError: for another ending, or `zipped=False`.
            FileExistsError: if there is such a file and `overwrite` is false.
            OSError: if the file cannot be written; it is named.

        >>> import tempfile
        >>> import keras_incremental as ki
        >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
        >>> model.add_classes(["cat", "dog"])
        >>> path = tempfile.mkdtemp() + "/model.keras"
        >>> model.save(path)
        >>> keras.models.load_model(path).class_names
        ['cat', 'dog']
        """
        path = as_path(filepath)
        if path.suffix != ".keras" or zipped is False:
            raise ValueError(
                f"Got filepath={str(filepath)!r} and zipped={zipped}; expected "
                "a path that ends in '.keras'. HDF5 has no place for this "
                "model, and a folder cannot be replaced as a whole; see "
                "export for other formats."
            )
        if not overwrite and path.exists():
            raise FileExistsError(
                f"{str(filepath)!r} exists. Pass overwrite=True to replace it."
            )
        with replacing(path) as temporary:
            super().save(temporary, **options)

    def load_weights(
        self, filepath: PathLike, skip_mismatch: bool = False, **options: object
    ) -> None:
        """As Keras' `load_weights`, of a model of the same classes.

        Raises:
            ValueError: for weights of another number of classes. Those that
                could be loaded have been.
        """
        super().load_weights(filepath, skip_mismatch=skip_mismatch, **options)
        for layer in self.network.head_layers():
            layer.check_units()

    def get_config(self):
        return {
            "name": self.name,
            "network": keras.saving.serialize_keras_object(self.network),
            "score_rule": keras.saving.serialize_keras_object(self.score_rule),
            "labels": self.labels,
            "class_names": self.class_names,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        network, score_rule = (
            keras.saving.deserialize_keras_object(
                config[part], custom_objects=custom_objects
            )
            for part in ("network", "score_rule")
        )
        classes = ClassIndex(config["labels"], config["class_names"])
        _check_parts(network, score_rule, classes)
        return cls._of_parts(network, score_rule, classes, config["name"])


def _check_parts(network, score_rule, classes: ClassIndex) -> None:
    """Refuses parts, read from a file, that do not make up a classifier."""
    if not isinstance(network, Network) or not isinstance(
        score_rule, ScoreRule
    ):
        raise ValueError(
            f"The classifier is of a {type(network).__name__} and a "
            f"{type(score_rule).__name__}; expected a Network and a ScoreRule."
        )
    if network.units != len(classes):
        raise ValueError(
            f"The network has {network.units} units for {len(classes)} classes."
        )
