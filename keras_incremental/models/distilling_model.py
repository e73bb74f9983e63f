"""Backbone, head and teacher with the train step that fuses both losses."""

import contextlib
import inspect
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_incremental import distribution
from keras_incremental.layers import ExpandableDense
from keras_incremental.losses import classification_loss, distillation_loss
from keras_incremental.models.epoch_steps import EpochSteps
from keras_incremental.models.teacher import Teacher
from keras_incremental.models.training_settings import (
    TrainingSettings,
    add_noise,
)


class DistillingModel(keras.Model):
    """Trains a backbone and an expandable head on units, not on labels.

    Loss: softmax cross-entropy over all units (or the compiled loss), plus
    distillation of the first `training_settings.distilled_units` units from
    the teacher, plus the layers' own regularisation. One trace serves every
    task: what changes between tasks is held in variables.

    Args:
        backbone: a built Functional or Sequential model from images to
            feature vectors.
        head: the classification layer.
        name: as in `keras.Model`.
    """

    def __init__(self, backbone: keras.Model, head: ExpandableDense, name=None):
        super().__init__(name=name)
        self.backbone, self.head = backbone, head
        if not head.built:
            head.build((None, backbone.output_shape[-1]))
        self._loss_mean = keras.metrics.Mean("loss")
        self._accuracy = keras.metrics.Mean("accuracy")
        self._classification_mean = keras.metrics.Mean("classification_loss")
        self._distillation_mean = keras.metrics.Mean("distillation_loss")
        self._untracked = _Untracked(backbone)
        self.built = True

    def call(self, inputs, training=None):
        return self.head(self.backbone(inputs, training=training))

    @property
    def input_shape(self) -> tuple:
        """Shape of a batch of raw images, `(None, h, w, c)`."""
        return self.backbone.input_shape

    def extract_features(
        self, images: tf.data.Dataset, batch_size: int = 256
    ) -> np.ndarray:
        """Returns the backbone's features, in inference mode.

        Args:
            images: a dataset of single raw images.
            batch_size: images per call of the backbone.

        Returns:
            `(samples, dim)` float32.
        """
        batches = images.batch(batch_size).prefetch(tf.data.AUTOTUNE)
        parts = [self._untracked.features(batch).numpy() for batch in batches]
        if not parts:
            return np.zeros((0, self.backbone.output_shape[-1]), np.float32)
        return np.concatenate(parts)

    @property
    def training_settings(self) -> TrainingSettings:
        """What a callback sets between steps: distilled units, noise, ..."""
        return self._untracked.settings

    @property
    def train_function_traces(self) -> int:
        """How often the train step has been traced since the model was made."""
        return self._untracked.train_traces

    @property
    def test_function_traces(self) -> int:
        """How often the test step has been traced since the model was made."""
        return self._untracked.test_traces

    def use_teacher(self, wanted: bool) -> None:
        """Makes sure that the train step has a teacher, or has none."""
        if wanted == self.has_teacher:
            return
        self._untracked.teacher = (
            Teacher(self.backbone, self.head) if wanted else None
        )
        self.train_function = None

    def update_teacher(self) -> None:
        """Makes the teacher equal to the network as it is now."""
        self._untracked.teacher.copy_from(self.backbone, self.head)

    def teacher_logits(self, images: np.ndarray) -> np.ndarray:
        """Returns the teacher's logits, to be kept for many train steps.

        The train step takes `{"images": images, "teacher_logits": rows}` in
        place of images, and then does not run the teacher. While nothing is
        distilled it is not run here either.

        Args:
            images: `(samples, h, w, c)` raw images.

        Returns:
            `(samples, capacity)` float32; columns without a unit are 0.
        """
        settings = self._untracked.settings
        if not settings.distilled_units.numpy():
            return np.zeros((len(images), self.head.allocated), np.float32)
        return self._untracked.teacher.all_logits(images)

    @property
    def has_teacher(self) -> bool:
        """Whether the train step has a teacher."""
        return self._untracked.teacher is not None

    def reserve(self, units: int) -> None:
        """Makes room for so many more units.

        If the head's capacity is used up, it doubles: then the optimizer is
        replaced by a fresh one of the same configuration, and the functions of
        `fit`, `evaluate` and `predict` are traced again.
        """
        if not self.head.reserve(units):
            return
        if self.has_teacher:
            self.update_teacher()
        self.renew_training()

    def renew_training(self) -> None:
        """Takes a fresh optimizer, as other variables are trained from now.

        The functions of `fit`, `evaluate` and `predict` are traced again.
        """
        if self.compiled:
            self.optimizer = fresh_optimizer(self.optimizer)
        self.train_function = None
        self.renew_inference()

    def renew_inference(self) -> None:
        """Has the functions of `evaluate` and `predict` traced again."""
        self.test_function = None
        self.predict_function = None

    def use_features(self, features) -> None:
        """Sets what `extract_features` computes, from a batch of images."""
        self._untracked.use_features(features)

    def average_statistics(self) -> None:
        """Gives moving statistics their mean over all replicas.

        Each replica moves those of `BatchNormalization` by its own part of
        each batch. All workers have to call it.
        """
        strategy, kept = self.distribute_strategy, self._untracked
        variables = [
            weight
            for weight in self.non_trainable_weights
            if tf.as_dtype(weight.dtype).is_floating
        ]
        if strategy.num_replicas_in_sync == 1 or not variables:
            return
        identities = [id(variable) for variable in variables]
        if identities != kept.averaged:
            kept.averaged = identities
            kept.average = distribution.averaging(strategy, variables)
        kept.average()

    def restart_optimizer(self) -> None:
        """Sets momentum, moments and step count back to the start."""
        variables = self.trainable_variables
        if not self.optimizer.built:
            self.optimizer.build(variables)
            self._untracked.remember_start(self.optimizer)
            return
        start = self._untracked.start_of(self.optimizer)
        if start is None:  # built by a plain fit, or loaded
            fresh = fresh_optimizer(self.optimizer)
            fresh.build(variables)
            start = fresh.variables
        for variable, value in zip(
            self.optimizer.variables, start, strict=True
        ):
            variable.assign(value)

    def training_logits(self, x):
        """Returns the logits that the train step compares with the units."""
        return self(x, training=True)

    def train_step(self, data):
        """One optimizer step on the sum of the loss terms."""
        self._untracked.train_traces += _counts_as_trace()
        x, units, weight = keras.utils.unpack_x_y_sample_weight(data)
        x, teacher_logits = _take_apart(x)
        count = tf.shape(units)[0]
        with tf.GradientTape() as tape:
            logits = distribution.logits_of(self.training_logits, x, count)
            classification = self._classification(x, units, logits, weight)
            distillation = self._distillation(x, logits, teacher_logits)
            loss = classification + distillation
            scaled_loss = self.optimizer.scale_loss(
                distribution.share_of_global_mean(loss, count)
            )
        variables = self.trainable_variables
        gradients = self._with_noise(tape.gradient(scaled_loss, variables))
        self.optimizer.apply(gradients, variables)
        _note(self._classification_mean, classification, count)
        _note(self._distillation_mean, distillation, count)
        return self._results(x, units, logits, weight, loss)

    def test_step(self, data):
        """Loss and accuracy of one batch, without distillation."""
        self._untracked.test_traces += _counts_as_trace()
        x, units, weight = keras.utils.unpack_x_y_sample_weight(data)
        logits = self._inference_logits(x)
        loss = self._classification(x, units, logits, weight)
        with self._untracked.testing():
            return self._results(x, units, logits, weight, loss)

    def predict_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        logits = self._inference_logits(x)
        # Several workers cannot gather bfloat16.
        return tf.cast(
            logits, keras.backend.result_type(logits.dtype, "float32")
        )

    def _inference_logits(self, x):
        count = tf.shape(keras.tree.flatten(x)[0])[0]
        return distribution.logits_of(
            lambda rows: self(rows, training=False), x, count
        )

    def fit(self, x=None, *args, **kwargs):
        """As Keras' `fit`; of an endless dataset, just `steps_per_epoch` steps.

        Keras' own rounds them up to whole executions of
        `steps_per_execution`, and so goes on into the next epoch's data.
        """
        self._untracked.fit_steps = self._steps_of(
            x, kwargs.get("steps_per_epoch")
        )
        try:
            return super().fit(x, *args, **kwargs)
        finally:
            self._untracked.fit_steps = EpochSteps()

    def evaluate(self, x=None, *args, **kwargs):
        """As Keras' `evaluate`; of an endless dataset, just `steps` steps."""
        self._untracked.evaluate_steps = self._steps_of(x, kwargs.get("steps"))
        try:
            # A function is traced for inside and for outside of a scope.
            with self.distribute_strategy.scope(), self._untracked.testing():
                return super().evaluate(x, *args, **kwargs)
        finally:
            self._untracked.evaluate_steps = EpochSteps()

    def _steps_of(self, data, number: int | None) -> EpochSteps:
        """Returns the steps to count; none where the data end by themselves."""
        return EpochSteps(
            number or None if _is_endless(data) else None,
            self.steps_per_execution,
        )

    def make_train_function(self, force=False):
        if force or self.train_function is None:
            super().make_train_function(force=True)
            self.train_function = self._counting(
                lambda: self._untracked.fit_steps,
                self.train_step,
                self.train_function,
            )
        return self.train_function

    def make_test_function(self, force=False):
        if force or self.test_function is None:
            super().make_test_function(force=True)
            self.test_function = self._counting(
                lambda: self._untracked.evaluate_steps,
                self.test_step,
                self.test_function,
            )
        return self.test_function

    def _counting(
        self,
        epoch_steps: Callable[[], EpochSteps],
        step: Callable,
        to_the_end: Callable,
    ) -> Callable:
        """Returns a function of `fit` or `evaluate` that ends where it should.

        Args:
            epoch_steps: returns how many steps there are.
            step: from a batch to logs.
            to_the_end: Keras' function, for data that end with the epoch.
        """
        strategy, at_once = self.distribute_strategy, self.steps_per_execution
        is_multi_worker = distribution.is_multi_worker(strategy)
        if at_once == 1 and not is_multi_worker:
            return to_the_end
        if strategy.num_replicas_in_sync > 1:
            to_the_end = distribution.steps_to_the_end(step, strategy, at_once)
        counted = distribution.steps_in_one_call(
            step, strategy, self.run_eagerly
        )

        def function(iterator):
            epoch = epoch_steps()
            if epoch.number is None:
                return to_the_end(iterator)
            return counted(iterator, tf.constant(epoch.next_count()))

        return function

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Builds optimizer, compiled loss and metrics before the first step.

        Keras' own reads a batch and reduces it over the replicas, which fails
        for parts of unequal size and for several workers
        (keras-team/keras#20585). Both methods are private; without a strategy
        neither does anything.
        """
        if self.distribute_strategy.num_replicas_in_sync == 1:
            super()._maybe_symbolic_build(iterator, data_batch)
            return
        images = keras.KerasTensor(self.input_shape, "float32")
        units = keras.KerasTensor((None,), "int32")
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=(images, units))

    @property
    def metrics(self):
        base = super().metrics  # holds a loss tracker of Keras' own as well
        parts = (self._classification_mean, self._distillation_mean)
        return [
            m
            for m in base
            if (m.name != "loss" or m is self._loss_mean)
            and not (self._untracked.is_testing and m in parts)
        ]

    def _classification(self, x, units, logits, weight):
        """The compiled loss, or cross-entropy; and regularisation terms."""
        if self.loss is not None:
            _check_takes_logits(self.loss)
            loss = self.compute_loss(x, units, logits, weight)
            # Keras has divided it by the replicas, as if all had one size.
            return loss * distribution.number_of_replicas()
        losses = classification_loss(units, logits)
        if weight is not None:
            losses *= tf.cast(weight, losses.dtype)
        return tf.reduce_mean(losses) + tf.add_n([0.0, *self.losses])

    def _distillation(self, x, logits, teacher_logits):
        teacher, settings = self._untracked.teacher, self._untracked.settings
        if teacher is None:
            return tf.constant(0.0)

        def distilled():
            return tf.reduce_mean(
                distillation_loss(
                    logits,
                    teacher.logits(x)
                    if teacher_logits is None
                    else teacher_logits,
                    self.head.head_of_unit(),
                    settings.distilled_units,
                    settings.temperature,
                )
            )

        return tf.cond(
            settings.distilled_units > 0, distilled, lambda: tf.constant(0.0)
        )

    def _with_noise(self, gradients):
        settings = self._untracked.settings
        seed = tf.random.experimental.stateless_fold_in(
            settings.noise_seed,
            tf.convert_to_tensor(self.optimizer.iterations),
        )
        scale = self.optimizer.scale_loss(tf.constant(1.0))
        # Each replica draws the same noise, and their gradients are summed.
        scale /= distribution.number_of_replicas()
        return add_noise(gradients, settings.noise_stddev, seed, scale)

    def _results(self, x, units, logits, weight, loss):
        _note(self._loss_mean, loss, tf.shape(logits)[0])
        units = tf.reshape(tf.cast(units, tf.int64), [-1])
        hits = tf.equal(units, tf.argmax(logits, axis=-1))
        self._accuracy.update_state(tf.cast(hits, tf.float32), weight)
        return self.compute_metrics(x, units, logits, weight)


class _Untracked:
    """State that Keras is neither to save nor to train; a plain object."""

    def __init__(self, backbone: keras.Model):
        self.settings = TrainingSettings()
        self.teacher: Teacher | None = None
        self.train_traces = 0
        self.test_traces = 0
        self.is_testing = False
        self.fit_steps, self.evaluate_steps = EpochSteps(), EpochSteps()
        self.averaged, self.average = [], None
        self._started, self._start = None, None
        self.use_features(lambda images: backbone(images, training=False))

    @contextlib.contextmanager
    def testing(self):
        """While it is open, the metrics are those of the test step."""
        before, self.is_testing = self.is_testing, True
        try:
            yield
        finally:
            self.is_testing = before

    def use_features(self, features) -> None:
        """Sets the function from images to features."""
        self.features = tf.function(
            lambda images: tf.cast(features(images), tf.float32),
            reduce_retracing=True,
        )

    def remember_start(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Keeps the values of an optimizer that has just been built."""
        self._started = optimizer
        self._start = [variable.numpy() for variable in optimizer.variables]

    def start_of(self, optimizer: keras.optimizers.Optimizer) -> list | None:
        """Returns the values kept of this optimizer, if any."""
        return self._start if self._started is optimizer else None


def _is_endless(data) -> bool:
    """Whether the data do not end, as far as Keras knows.

    What is split over replicas is either endless or read once.
    """
    if isinstance(data, tf.data.Dataset):
        return int(data.cardinality()) == tf.data.INFINITE_CARDINALITY
    return isinstance(data, tf.distribute.DistributedDataset)


def _take_apart(x):
    """Returns images, and the teacher's logits if they come with them."""
    if isinstance(x, dict) and "teacher_logits" in x:
        return x["images"], x["teacher_logits"]
    return x, None


def _counts_as_trace() -> bool:
    """Whether the step is traced, for the first of the replicas here."""
    return not tf.executing_eagerly() and distribution.is_first_local_replica()


def _note(metric: keras.metrics.Mean, mean, count) -> None:
    metric.update_state(distribution.mean_or_zero(mean, count), count)


def _check_takes_logits(loss) -> None:
    """Refuses a compiled loss that would take the logits for probabilities."""
    if any(map(_takes_probabilities, keras.tree.flatten(loss))):
        raise ValueError(
            f"compile got loss={loss!r}, which takes probabilities; the model "
            "gives logits. Leave loss out, or pass "
            "keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
        )


def _takes_probabilities(loss) -> bool:
    """Whether a loss has an option `from_logits`, and it is off."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if isinstance(loss, keras.Loss):
        return loss.get_config().get("from_logits") is False
    if not inspect.isfunction(loss):
        return False
    option = inspect.signature(loss).parameters.get("from_logits")
    return option is not None and option.default is False


def fresh_optimizer(optimizer: keras.optimizers.Optimizer):
    """Returns an unused optimizer of the same kind and configuration."""
    return type(optimizer).from_config(optimizer.get_config())
