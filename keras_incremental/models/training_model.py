"""A network, an objective and a score rule, with the train step."""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_incremental import distribution
from keras_incremental.models.compiled_loss import check_takes_logits
from keras_incremental.models.gradient_noise import NoiseSettings, add_noise
from keras_incremental.models.network_model import NetworkModel
from keras_incremental.models.optimizer_start import fresh_optimizer, restart
from keras_incremental.models.training_state import TrainingState
from keras_incremental.networks import Network, trained_outputs
from keras_incremental.objectives import Batch, CrossEntropy, Objective
from keras_incremental.score_rules import ScoreRule


class TrainingModel(NetworkModel):
    """Trains a network on units, not on labels, by an objective.

    Loss: the batch means of the objective's terms, summed, plus the layers' own
    regularisation. One trace serves every task: what changes between tasks is
    held in variables.

    Args:
        network: from images to features and logits.
        score_rule: from these to the scores that decide.
        name: as in `keras.Model`.
    """

    def __init__(self, network: Network, score_rule: ScoreRule, name=None):
        super().__init__(network, score_rule, name)
        self._training = TrainingState()
        self._loss_mean = keras.metrics.Mean("loss")
        self._accuracy = keras.metrics.Mean("accuracy")
        network.activate()
        self.follow_network()

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As Keras' `compile`; without a loss it is the objective's.

        Raises:
            TypeError: for an optimizer that cannot be made anew from its
                configuration, as growth needs it.
            ValueError: for a loss that takes probabilities: the model gives
                logits.
        """
        super().compile(*args, **kwargs)
        check_takes_logits(self.loss)
        fresh_optimizer(self.optimizer)

    def compile_from_config(self, config):
        """As Keras', which leaves it to a class with a `compile` of its own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    # Between phases and tasks.

    @property
    def train_function_traces(self) -> int:
        """How often the train step has been traced since the model was made."""
        return self._training.train_traces

    @property
    def test_function_traces(self) -> int:
        """How often the test step has been traced since the model was made."""
        return self._training.test_traces

    @property
    def gradient_noise(self) -> NoiseSettings:
        """The noise added to gradients; set by the runner of a phase."""
        return self._training.noise

    def use_objective(self, objective: Objective) -> None:
        """Sets what the train step minimises.

        Objectives that differ in numbers alone share a trace. The teacher of
        one that needs it becomes a copy of the network as it is now.
        """
        training = self._training
        if objective.needs_teacher and training.follow_network(self.network):
            self.reset_train_function()
        training.objective.train_function = self.train_function
        self.train_function = training.use(objective).train_function

    def teacher_logits(self, columns: Mapping) -> np.ndarray:
        """Returns the teacher's logits, to be cached for many train steps.

        While nothing is distilled, the teacher does not run.

        Args:
            columns: `{"images": images}` or `{"frozen": outputs}`, batch first.

        Returns:
            `(samples, allocated)` float32; columns without a unit are 0.
        """
        training = self._training
        if not training.is_distilling:
            count = len(tf.nest.flatten(columns)[0])
            return np.zeros(
                (count, self.network.trained_head.allocated), np.float32
            )
        return training.teacher.all_logits(columns)

    def follow_network(self) -> None:
        """Takes note that the network may have other variables than before.

        Where those that are trained differ, the optimizer is replaced by a
        fresh one with all that has been set on it, and all functions are traced
        again.
        """
        training, network = self._training, self.network
        known, trained = training.variables, training.trained_variables
        training.variables = list(network.variables)
        training.trained_variables = list(network.trainable_variables)
        if not _are_same(trained, training.trained_variables):
            if self.compiled:
                self.optimizer = fresh_optimizer(
                    self.optimizer, trained, training.trained_variables
                )
            self.reset_train_function()
        elif _are_same(known, training.variables):
            return
        self.reset_inference()

    def reset_train_function(self) -> None:
        """Has the train step traced again."""
        self.train_function = None
        self._training.forget_traces()

    def average_statistics(self) -> None:
        """Gives moving statistics their mean over all replicas.

        Each replica moves those of `BatchNormalization` by its own part of
        each batch. All workers have to call it.
        """
        variables = [
            weight
            for weight in self.non_trainable_weights
            if tf.as_dtype(weight.dtype).is_floating
        ]
        self._training.average(self.distribute_strategy, variables)

    def measure_statistics(self, batches: Iterable[Mapping]) -> None:
        """Sets moving statistics to their mean over batches.

        Those of `BatchNormalization` where it is trained, that is. All workers
        have to call it, with the same batches.

        Args:
            batches: `{"images": images}` or `{"frozen": outputs}` each.
        """
        strategy = self.distribute_strategy
        self._training.statistics(self.network, strategy).measure(batches)

    def restart_optimizer(self) -> None:
        """Sets momentum, moments and step count back to the start."""
        restart(self.optimizer, self.trainable_variables)

    # The steps.

    def train_step(self, data):
        """One optimizer step on the sum of the loss terms."""
        self._training.train_traces += _counts_as_trace()
        x, units, weight = keras.utils.unpack_x_y_sample_weight(data)
        columns = x if isinstance(x, dict) else {"images": x}
        count, objective = tf.shape(units)[0], self._training.objective
        with tf.GradientTape() as tape:
            logits, features = distribution.rows_of(
                lambda rows: trained_outputs(self.network, rows, training=True),
                columns,
                count,
            )
            batch = self._batch(columns, units, logits, features, weight)
            terms = {
                name: _weighted_mean(term, weight)
                for name, term in objective.objective.terms(batch).items()
            }
            loss = tf.add_n([*terms.values(), self._regularization()])
            scaled_loss = self.optimizer.scale_loss(
                distribution.share_of_global_mean(loss, count)
            )
        variables = self.trainable_variables
        gradients = self._with_noise(tape.gradient(scaled_loss, variables))
        self.optimizer.apply(gradients, variables)
        for name, term in terms.items():
            _note(objective.term_means[name], term, count)
        return self._results(columns, units, logits, weight, loss)

    def test_step(self, data):
        """Loss and accuracy of one batch by the scores, no distillation."""
        self._training.test_traces += _counts_as_trace()
        x, units, weight = keras.utils.unpack_x_y_sample_weight(data)
        scores = self._inference_scores(x)
        batch = self._batch({"images": x}, units, scores, None, weight)
        (term,) = CrossEntropy().terms(batch).values()
        loss = _weighted_mean(term, weight) + self._regularization()
        with self._training.testing():
            return self._results(x, units, scores, weight, loss)

    def predict_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        scores = self._inference_scores(x)
        # Several workers cannot gather bfloat16.
        return tf.cast(
            scores, keras.backend.result_type(scores.dtype, "float32")
        )

    def _inference_scores(self, x):
        count = tf.shape(keras.tree.flatten(x)[0])[0]
        return distribution.rows_of(
            lambda rows: self(rows, training=False), x, count
        )

    def _batch(self, columns, units, logits, features, weight) -> Batch:
        """Returns what an objective sees."""

        def teacher_logits():
            cached = columns.get("teacher_logits")
            if cached is None:
                return self._training.teacher.logits(columns)
            return cached[:, : tf.shape(logits)[1]]

        def compiled_loss():
            loss = self.compute_loss(columns, units, logits, weight)
            # Keras has divided it by the replicas, as if all had one size, and
            # has added the regularisation, which the step adds to all terms.
            loss *= distribution.number_of_replicas()
            return loss - self._regularization()

        return Batch(
            units,
            logits,
            features,
            self.network.trained_head.head_of_unit(),
            teacher_logits,
            None if self.loss is None else compiled_loss,
        )

    def _regularization(self) -> tf.Tensor:
        """Returns the layers' own losses, those of trained variables alone."""
        return tf.add_n([0.0, *(tf.cast(x, tf.float32) for x in self.losses)])

    @property
    def metrics(self):
        base = super().metrics  # holds a loss tracker of Keras' own as well
        means = self._training.objective.term_means.values()
        return [
            *(m for m in base if m.name != "loss" or m is self._loss_mean),
            *(() if self._training.is_testing else means),
        ]

    def evaluate(self, *args, **kwargs):
        # A function is traced for inside and for outside of a scope.
        with (
            self._training.testing(),
            self.distribute_strategy.scope(),
            _first_traces_are_no_retraces(),
        ):
            return super().evaluate(*args, **kwargs)

    def _with_noise(self, gradients):
        noise = self._training.noise
        seed = tf.random.experimental.stateless_fold_in(
            noise.seed, tf.convert_to_tensor(self.optimizer.iterations)
        )
        scale = self.optimizer.scale_loss(tf.constant(1.0))
        # Each replica draws the same noise, and their gradients are summed.
        scale /= distribution.number_of_replicas()
        return add_noise(gradients, noise.stddev, seed, scale)

    def _results(self, x, units, scores, weight, loss):
        _note(self._loss_mean, loss, tf.shape(scores)[0])
        units = tf.reshape(tf.cast(units, tf.int64), [-1])
        hits = tf.equal(units, tf.argmax(scores, axis=-1))
        self._accuracy.update_state(tf.cast(hits, tf.float32), weight)
        return self.compute_metrics(x, units, scores, weight)


@contextlib.contextmanager
def _first_traces_are_no_retraces():
    """Withholds a warning of TensorFlow's that would be wrong.

    Keras makes a function anew where a task has another score rule, and
    TensorFlow counts the first traces of them all as retraces of one.
    """
    logger = tf.get_logger()
    logger.addFilter(_is_no_retracing)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_retracing)


def _is_no_retracing(record) -> bool:
    return "triggered tf.function retracing" not in record.getMessage()


def _weighted_mean(term, weight) -> tf.Tensor:
    if weight is not None and len(term.shape):
        term *= tf.cast(weight, term.dtype)
    return tf.reduce_mean(term)


def _are_same(variables: Iterable, others: Iterable) -> bool:
    """Whether both are the same objects, in the same order."""
    return [*map(id, variables)] == [*map(id, others)]


def _counts_as_trace() -> bool:
    """Whether the step is traced, for the first of the replicas here."""
    return not tf.executing_eagerly() and distribution.is_first_local_replica()


def _note(metric: keras.metrics.Mean, mean, count) -> None:
    metric.update_state(distribution.mean_or_zero(mean, count), count)
