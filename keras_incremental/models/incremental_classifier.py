"""A Keras model that learns new classes from `fit` to `fit`."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.backbones import as_feature_extractor
from keras_incremental.labels import UNKNOWN_LABEL_MESSAGE, ClassIndex
from keras_incremental.layers import (
    Branches,
    ExpandableDense,
    Traced,
    copy_weights,
    finalize_normalizations,
)
from keras_incremental.models.adoption import class_index, take_apart
from keras_incremental.models.distilling_model import DistillingModel
from keras_incremental.models.incremental_fit import FitRequest, IncrementalFit
from keras_incremental.models.shared_trunk import SharedTrunk
from keras_incremental.models.unit_data import (
    evaluation_data,
    to_unit_data,
    unit_validation_data,
    unit_weights,
    with_steps_taken,
)
from keras_incremental.models.weights_checksum import WeightsChecksum
from keras_incremental.networks import thin

# Of what `get_config` returns: to be raised with any change that a version
# before it would misread. Version 0 has no `format_version` and no checksum.
FORMAT_VERSION = 1


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
        branch_at: where to cut the backbone for a method that grows branches,
            such as `PartialSharing`: the name of the last layer to share, or
            the fraction of the weight layers to share at least, 0 to 1;
            `keras_incremental.sharing.cut_points(backbone)` lists the legal
            places.
        name: as in `keras.Model`.

    Raises:
        TypeError, ValueError: for a backbone that is no such model.

    >>> import keras_incremental as ki
    >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
    >>> model.add_classes([40, 7], ["forty", "seven"])
    >>> model.class_names, model.predict(np.ones((1, 8, 8, 1)), verbose=0).shape
    (['forty', 'seven'], (1, 2))
    """

    def __init__(self, backbone, capacity=128, branch_at=None, name=None):
        head = ExpandableDense(capacity=capacity, name="head")
        super().__init__(as_feature_extractor(backbone), head, name)
        self._set_up(
            ClassIndex(),
            branch_at,
            None if branch_at is None else Branches(name="branches"),
        )

    @classmethod
    def from_classifier(
        cls,
        trained,
        class_names,
        labels=None,
        capacity=128,
        branch_at=None,
        name=None,
    ) -> "IncrementalClassifier":
        """Returns a model that goes on from a trained Keras classifier.

        Its logits equal those of `trained`, before the softmax if there is
        one, to float rounding. All layers are cloned, so that `trained` stays
        as it is; layers that it has frozen stay frozen, unless its last one
        is frozen too. Compile the model before `fit`.

        Pass what old data is still there to `ExemplarMemory.add_from`. If
        there is none, start with an empty memory: `EEIL` then distils the old
        classes on the new images alone. That helps the model to tell the old
        classes from one another, but nothing teaches it to tell old from new:
        expect most images of old classes to be taken for new ones, until the
        memory gets a few exemplars of each.

        Args:
            trained: a built Functional or Sequential classifier, with logits
                or softmax probabilities as its output: dense layers at its
                end, or a convolution of one position, as in MobileNetV3.
            class_names: the names of its classes, in the order of its outputs.
            labels: their labels; by default 0, 1, ...
            capacity: as for the class; doubled until the classes have room.
            branch_at: as for the class.
            name: as in `keras.Model`.

        Raises:
            TypeError: if `trained` is no Keras model, or names are no text.
            ValueError: if `trained` is no such classifier, or the names or
                labels are duplicated or not one for each output.

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
        if isinstance(trained, IncrementalClassifier):
            raise ValueError(
                f"{trained.name!r} is an IncrementalClassifier already; use it "
                "as it is."
            )
        classes = class_index(class_names, labels)
        parts = take_apart(trained, len(classes), capacity)
        branches = None if branch_at is None else Branches(name="branches")
        return cls._from_parts(
            parts.backbone, parts.head, classes, name, branch_at, branches
        )

    @classmethod
    def _from_parts(cls, backbone, head, classes, name, branch_at, branches):
        model = cls.__new__(cls)
        DistillingModel.__init__(model, backbone, head, name)
        model._set_up(classes, branch_at, branches)
        return model

    def _set_up(self, classes, branch_at, branches):
        self._classes = classes
        self._shared, self.branches = None, branches
        self._raw = Traced(self._raw_logits)
        self._unlisted = _Unlisted(WeightsChecksum(self._weights_by_part))
        if branches is not None:
            self._shared = SharedTrunk(self.backbone, self.head, branch_at)
        if self.has_branches:  # saved, with all of the base frozen
            self.backbone.trainable = self.head.trainable = True
            self._freeze_base()
            self._renew_branched_inference()

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
            labels: the new labels, integers of 0 or more, or strings.
            names: their names; by default their own text.

        Raises:
            ValueError: for none, or for labels or names that are known.
        """
        labels = list(labels)
        if not labels:
            raise ValueError("add_classes got no labels; expected 1 or more.")
        self._classes.add(labels, names)
        with self.distribute_strategy.scope():
            self.reserve(len(labels))
            self.head.expand(len(labels))

    def add_branch(
        self, labels, names=None, network=None, seed: int | None = None
    ) -> None:
        """Adds a branch for new classes; all that was there is frozen.

        `PartialSharing` does this by itself.

        Args:
            labels: the new labels, integers of 0 or more, or strings.
            names: their names; by default their own text.
            network: from the trunk's outputs to features; it becomes part of
                the model. By default a clone of the backbone's later layers.
            seed: of the new classifier's weights.

        Raises:
            ValueError: for no labels, for labels or names that are known, or
                for a model without a branch point or without a base.
        """
        labels = list(labels)
        if not labels:
            raise ValueError("add_branch got no labels; expected 1 or more.")
        if self.branches is None:
            raise ValueError(
                "add_branch needs a branch point. Build the model with one: "
                'IncrementalClassifier(backbone, branch_at="stage2").'
            )
        self._check_taught("add_branch")
        self._classes.add(labels, names)
        with self.distribute_strategy.scope():
            network = thin(self.tail, 1.0) if network is None else network
            new_variables = self.branches.add(network, len(labels), seed)
            self._freeze_base()
            if new_variables:
                self.renew_training()
        self._renew_branched_inference()

    def drop_heads(self, num_heads: int) -> None:
        """Takes back the heads and branches, and their classes, after
        `num_heads`."""
        drops_branches = self.has_branches and len(self.heads) > num_heads
        while self.has_branches and len(self.heads) > num_heads:
            self.branches.remove_newest()
        if not self.has_branches:
            self.head.truncate(num_heads)
        self._classes.truncate(self.heads[-1].stop if self.heads else 0)
        if drops_branches:
            self._freeze_base()
            self._renew_branched_inference()
            self.renew_training()

    def reserve(self, units: int) -> None:
        if not self.has_branches:
            super().reserve(units)
        elif self.branches.reserve(units):
            self.renew_training()

    # Branches.

    @property
    def heads(self) -> list[slice]:
        """The units of each step's classes, in order of arrival."""
        heads = self.head.heads
        for branch in self._branches_so_far():
            first = heads[-1].stop
            heads.append(slice(first, first + branch.units))
        return heads

    @property
    def has_branches(self) -> bool:
        """Whether the base is frozen and branches have been added."""
        return self.branches is not None and len(self.branches) > 0

    @property
    def branch_at(self) -> str | float | None:
        """The layer where the backbone is cut, 0.0, 1.0, or `None`."""
        return None if self._shared is None else self._shared.branch_at

    @property
    def shared_layers(self) -> float | None:
        """The share of the weight layers before the cut, or `None`."""
        return None if self._shared is None else self._shared.cut.layers

    @property
    def trunk(self) -> keras.Model | None:
        """The shared part of the backbone, or `None`."""
        return None if self._shared is None else self._shared.trunk

    @property
    def tail(self) -> keras.Model | None:
        """The base's own part of the backbone, or `None`."""
        return None if self._shared is None else self._shared.tail

    def trunk_outputs(self, inputs):
        """Returns what the shared part makes of images, in inference mode.

        Args:
            inputs: a batch of raw images, or `{"trunk_outputs": outputs}` with
                outputs computed before, which every method of the model takes
                in place of images.

        Raises:
            ValueError: for a model without a branch point.
        """
        if self._shared is None:
            raise ValueError(
                "The model has no trunk. Build it with a branch point: "
                'IncrementalClassifier(backbone, branch_at="stage2").'
            )
        return self._shared.outputs(inputs)

    def to_training_units(self, labels) -> np.ndarray:
        """Returns the units of labels, as the train step counts them.

        With branches, the newest is trained alone, and its first class is 0.
        """
        units = self._classes.to_units(labels)
        return units - self.heads[-1].start if self.has_branches else units

    def training_logits(self, x):
        if not self.has_branches:
            return super().training_logits(x)
        outputs = self._shared.outputs(x)
        return self.branches.newest(outputs, training=True)

    def uncalibrated_logits(self, images) -> tf.Tensor:
        """Returns the logits of a batch before scales and biases.

        Old branches give the same bits for ever; without branches these are
        the model's logits.
        """
        return self._raw.call(images)

    def part_logits(self, inputs) -> list[tf.Tensor]:
        """Returns the uncalibrated logits of the base and of each branch.

        Outside of a graph each part runs by a function of its own, which has
        been traced before: nothing is traced anew as branches are added.

        Args:
            inputs: as of `trunk_outputs`.
        """
        outputs = self.trunk_outputs(inputs)
        return [
            self._shared.base_logits(outputs),
            *(branch.inference(outputs) for branch in self._branches_so_far()),
        ]

    def task_of_unit(self) -> np.ndarray:
        """Returns the step that each unit was learned in, `(num_classes,)`."""
        sizes = [head.stop - head.start for head in self.heads]
        return np.repeat(np.arange(len(sizes)), sizes)

    def branch_of_unit(self) -> np.ndarray:
        """Returns the branch of each unit, 0 for the base."""
        sizes = [branch.units for branch in self._branches_so_far()]
        return np.repeat(np.arange(len(sizes) + 1), [self.head.units, *sizes])

    def labelled_logits(
        self, dataset: tf.data.Dataset, batch_size: int = 256
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns uncalibrated logits and units of labelled images.

        Args:
            dataset: single raw images with the user's labels.
            batch_size: images per call of the network.

        Returns:
            `(samples, num_classes)` logits, `(samples,)` units.
        """
        logits, labels = [], []
        for images, batch_labels in dataset.batch(batch_size).prefetch(1):
            logits.append(self.uncalibrated_logits(images).numpy())
            labels.append(batch_labels.numpy())
        return np.concatenate(logits), self._classes.to_units(
            np.concatenate(labels)
        )

    def calibration(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the scale and the bias of each unit, `(num_classes,)`."""
        scales, biases = np.ones(self.num_classes), np.zeros(self.num_classes)
        if self.has_branches:
            branch = self.branch_of_unit()
            scales = _as_numbers(self.branches.scales)[branch]
            biases = _as_numbers(self.branches.biases)[branch]
        return scales, biases

    def call(self, inputs, training=None):
        if not self.has_branches:
            if isinstance(inputs, dict):
                return self.head(
                    self.tail(self.trunk_outputs(inputs), training=training)
                )
            return super().call(inputs, training)
        outputs = self._shared.outputs(inputs)
        return self.branches([outputs, self._shared.base_logits(outputs)])

    def _raw_logits(self, inputs):
        if not self.has_branches:
            return self(inputs, training=False)
        return tf.concat(self.part_logits(inputs), axis=-1)

    def _freeze_base(self) -> None:
        """The base is trained until there is a branch."""
        if self.has_branches:
            self._shared.freeze()
        else:
            self._shared.thaw()

    def renew_inference(self) -> None:
        super().renew_inference()
        self._raw = Traced(self._raw_logits)

    def _renew_branched_inference(self) -> None:
        self.renew_inference()
        if self.has_branches:
            newest, shared = self.branches.newest, self._shared
            self.use_features(
                lambda images: newest.features(shared.outputs(images))
            )
        else:
            self.use_features(
                lambda images: self.backbone(images, training=False)
            )

    def with_branch_at(self, branch_at) -> "IncrementalClassifier":
        """Returns a copy of the model that is cut at another place.

        Args:
            branch_at: as for the class.

        Raises:
            ValueError: if the model has branches, or cannot be cut there.
        """
        if self.has_branches:
            raise ValueError(
                "The model has branches, which belong to its branch point "
                f"{self.branch_at!r}. Cut it before the first branch."
            )
        model = self.from_config(
            {
                **self.get_config(),
                "branch_at": branch_at,
                "branches": keras.saving.serialize_keras_object(Branches()),
            }
        )
        copy_weights(model.backbone, self.backbone)
        model.head.copy_from(self.head)
        if self.compiled:
            model.compile_from_config(self.get_compile_config())
        return model

    # State.

    def state_variables(self) -> list:
        """Returns all variables that make up the classifier, in a fixed order.

        Those of the optimizer and of metrics are not among them.
        """
        variables = [*self.backbone.variables, *self.head.variables]
        if self.branches is not None:
            variables += [self.branches.scale, self.branches.bias]
            for branch in self.branches.branches:
                variables += branch.variables
        return variables

    def structure(self) -> dict:
        """Returns classes, heads and branches as JSON types, no weights."""
        return {
            "labels": self.labels,
            "class_names": self.class_names,
            "heads": [head.stop - head.start for head in self.head.heads],
            "branches": [
                keras.saving.serialize_keras_object(branch)
                for branch in self._branches_so_far()
            ],
        }

    def restore_structure(self, structure: dict) -> None:
        """Takes over the structure of another state of the same run.

        The weights are left as they are, or as they are initialised.
        """
        self.drop_heads(0)
        sizes = structure["heads"]
        super().reserve(sum(sizes))
        for size in sizes:
            self.head.expand(size)
        self._classes.add(structure["labels"], structure["class_names"])
        for config in structure["branches"]:
            branch = keras.saving.deserialize_keras_object(config)
            self.branches.append(branch)
        if structure["branches"]:
            self._freeze_base()
            self.renew_training()
            self._renew_branched_inference()

    def finalize_state(self) -> None:
        """Has all that is computed from the variables follow their values.

        Call it after values have been assigned to `state_variables()`.
        """
        networks = [branch.network for branch in self._branches_so_far()]
        for network in (self.backbone, *networks):
            finalize_normalizations(network)
        if self._shared is not None:
            self._shared.renew()
        self.renew_inference()

    def load_weights(self, filepath, skip_mismatch=False, **options):
        """As Keras' `load_weights`, of a model of the same classes.

        Raises:
            ValueError: for weights of another number of classes. Those that
                could be loaded have been.
        """
        super().load_weights(filepath, skip_mismatch=skip_mismatch, **options)
        self.head.check_units()
        for branch in self._branches_so_far():
            branch.head.check_units()

    @property
    def _weights_checksum(self) -> WeightsChecksum:
        """What Keras saves and loads last, as it walks over the attributes."""
        return self._unlisted.checksum

    def _weights_by_part(self) -> dict:
        """Returns what a saved file is checked for."""
        parts = {"model": [*self.backbone.weights, *self.head.weights]}
        if self.branches is not None:
            parts["branches"] = [self.branches.scale, self.branches.bias]
            for branch in self.branches.branches:
                parts["branches"] += branch.weights
        if self.compiled and self.optimizer.built:
            # Keras leaves out, with a warning, those of another number.
            state = self.optimizer.variables
            parts[f"optimizer_{len(state)}"] = state
        return parts

    def _branches_so_far(self) -> list:
        return self.branches.branches if self.has_branches else []

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

    def get_config(self):
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "head": keras.saving.serialize_keras_object(self.head),
            "labels": self.labels,
            "class_names": self.class_names,
            "branch_at": self.branch_at,
            "branches": keras.saving.serialize_keras_object(self.branches),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        version = config.get("format_version", 0)
        if version > FORMAT_VERSION:
            raise ValueError(
                f"The model has format version {version}; this version of "
                f"keras_incremental reads up to {FORMAT_VERSION}. Update the "
                "package."
            )
        backbone, head, branches = (
            keras.saving.deserialize_keras_object(
                config.get(part), custom_objects=custom_objects
            )
            for part in ("backbone", "head", "branches")
        )
        classes = ClassIndex(config["labels"], config["class_names"])
        return cls._from_parts(
            backbone,
            head,
            classes,
            config["name"],
            config.get("branch_at"),
            branches,
        )

    def _check_plain_training(self, action: str) -> None:
        self._check_taught(action)
        if self.has_branches:
            raise ValueError(
                f"{action} would change a branch that has been trained, and "
                "branches are kept as they are. Call fit with "
                "IncrementalCallback(method=PartialSharing()) and new classes."
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


class _Unlisted:
    """Holds a layer that is none of `layers`, as Keras does not look here.

    Keras would load what is in `layers` before the optimizer.
    """

    def __init__(self, checksum: WeightsChecksum):
        self.checksum = checksum


def _as_numbers(scalars) -> np.ndarray:
    return np.array([float(v.numpy()) for v in scalars])


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
