"""Runs the phases of one task as a single Keras run."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_incremental.distribution import split_batches
from keras_incremental.methods import ClosedFormPhase, Phase, TaskStep
from keras_incremental.models import (
    FitRequest,
    IncrementalFit,
    evaluation_data,
    unit_validation_data,
)
from keras_incremental.progress import told_if_long, with_progress
from keras_incremental.samples import training_batches
from keras_incremental.training.backup import Backup, Progress
from keras_incremental.training.clock import Clock
from keras_incremental.training.finite import check_finite
from keras_incremental.training.learning_rate import LearningRate
from keras_incremental.training.multi_phase import MultiPhaseCallbackList
from keras_incremental.training.phase_callback import PhaseCallback
from keras_incremental.training.phase_progress import PhaseProgress

_PHASES_A_TASK = 256


class PhaseRunner:
    """Trains one phase after the other, from where a killed run had come to.

    Args:
        task: the model has grown.
        request: What the user passed to `fit`.
        backup: is told of each epoch.
        progress: how far an earlier process has come.
        clock: The clock of the task.
    """

    def __init__(
        self,
        task: TaskStep,
        request: FitRequest,
        backup: Backup,
        progress: Progress,
        clock: Clock,
    ):
        self._task, self._model = task, task.model
        self._backup, self._progress = backup, progress
        self._clock = clock
        self._rate = LearningRate(task.model.optimizer)
        self._steps = PhaseCallback(
            self._rate, clock, progress.epochs_before + progress.epochs
        )
        self._heading = PhaseProgress()
        self._options = _fit_options(task.model, request)
        self._class_weight = self._options.pop("class_weight", None)
        self._request = request
        self._index = self._first_epoch = 0

    @property
    def epochs(self) -> int:
        """Epochs that the task has had, in all processes."""
        return self._steps.epochs

    def run(self, phases: Sequence[Phase | ClosedFormPhase]):
        """Runs all phases; returns a Keras `History`.

        Raises:
            ValueError: for a `class_weight` that a closed form cannot follow.
        """
        closed = [p.name for p in phases if isinstance(p, ClosedFormPhase)]
        if self._class_weight and closed:
            raise ValueError(
                f"fit got class_weight, and phase {closed[0]!r} is solved in "
                "closed form, in which every image weighs the same. Leave "
                "class_weight out."
            )
        history = keras.callbacks.History()
        run = self._callback_list(history, sum(p.epochs for p in phases))
        try:
            run.begin()
            for self._index, phase in enumerate(phases):
                if self._index:
                    run.begin_phase()
                self._run_phase(phase, run)
                self._first_epoch += phase.epochs
        finally:
            self._rate.restart()
            self._model.gradient_noise.stddev.assign(0.0)
        run.end()
        self._model.history = history
        return history

    def _callback_list(self, history, epochs: int) -> MultiPhaseCallbackList:
        users = [
            callback
            for callback in self._request.callbacks
            if not isinstance(callback, IncrementalFit)
        ]
        return MultiPhaseCallbackList(
            [
                self._steps,
                history,
                *users,
                keras.callbacks.LambdaCallback(on_epoch_end=self._record_epoch),
                self._heading,
            ],
            model=self._model,
            verbose=self._request.verbose,
            epochs=epochs,
            steps=None,
        )

    def _run_phase(self, phase, run) -> None:
        """Runs a phase, or what is left of it after a kill."""
        progress = self._progress
        if self._index < progress.phase:
            return
        if isinstance(phase, ClosedFormPhase):
            with told_if_long(phase.name, self._task.verbose):
                phase.solve()
            check_finite(self._model, f"phase {phase.name!r}")
            return
        done = progress.epochs if self._index == progress.phase else 0
        self._steps.begin_phase(phase, self._first_epoch)
        self._heading.begin_phase(phase, self._first_epoch)
        if done:
            self._backup.restore_phase_start(self._model)
        else:
            self._backup.begin_phase(self._model)
        sources = phase.sources()
        if done == phase.epochs or (done and progress.stopped):
            self._restore_end()
        else:
            self._train(phase, sources, run, done)
        run.end_phase()
        if self._task.measure_statistics:
            self._measure_statistics(phase, sources)

    def _restore_end(self) -> None:
        """Brings the model to the end of a phase that was finished."""
        model = self._model
        model.restart_optimizer()
        self._backup.restore_epoch(model)
        # As Keras at the end of a fit: averages become the weights.
        model.optimizer.finalize_variable_values(model.trainable_variables)

    def _train(self, phase: Phase, sources: list, run, done: int) -> None:
        model, task = self._model, self._task
        counts = task.images_per_class(sources)[model.network.trained_units]
        model.use_objective(phase.objective.with_counts(counts))
        model.gradient_noise.seed.assign(
            [task.seed, len(model.heads) * _PHASES_A_TASK + self._index]
        )
        model.restart_optimizer()
        self._rate.restart()
        columns = {}
        if phase.objective.needs_teacher:
            columns["teacher_logits"] = model.teacher_logits
        with told_if_long("preparing the data", task.verbose):
            batches, steps = self._batches(
                phase, sources, columns=columns, first_epoch=done
            )
        if done:
            self._backup.restore_epoch(model)
            self._rate.factor = self._progress.factor
        if self._class_weight and phase.weighted:
            batches = batches.map(self._with_weights)
        run.expect_steps(steps)
        model.fit_units(
            split_batches(model.distribute_strategy, batches),
            steps_per_epoch=steps,
            initial_epoch=self._first_epoch + done,
            epochs=self._first_epoch + phase.epochs,
            callbacks=run,
            **self._options,
        )

    def _with_weights(self, columns, units):
        """Adds the weight of each image to a batch."""
        labels = self._model.labels[self._model.network.trained_units]
        weights = tf.constant(
            [float(self._class_weight.get(label, 1.0)) for label in labels]
        )
        return columns, units, tf.gather(weights, units)

    def _augment_of(self, phase: Phase):
        if not phase.augmented:
            return None
        return phase.augment or self._task.augment

    def _cached_copies(self, phase: Phase) -> int:
        """Returns how many variants of an image's frozen outputs are cached."""
        if not self._model.network.has_frozen_part:
            return 0
        return 1 if self._augment_of(phase) is None else phase.copies

    def _batches(self, phase: Phase, sources: list, **options):
        """Returns endless batches, and the steps per epoch.

        Where a part of the network is frozen, its outputs take the place of
        images, but for `copies=0`.
        """
        model, task = self._model, self._task
        augment, copies = self._augment_of(phase), self._cached_copies(phase)
        if copies:
            sources = [task.cached(source, copies) for source in sources]
            augment = None
        return training_batches(
            sources,
            self._to_trained_units,
            batch_size=task.batch_size,
            augment=augment,
            seed=(task.seed, len(model.heads), self._index),
            cache_bytes=task.cache_bytes,
            replicas=model.distribute_strategy.num_replicas_in_sync,
            **options,
        )

    def _measure_statistics(self, phase: Phase, sources: list) -> None:
        """Measures those of batch normalisation over one epoch of the phase.

        Images are augmented as they were while the weights were trained: what
        the network computes of an image depends on the others' statistics.
        """
        batches, steps = self._batches(phase, sources)
        steps *= max(self._cached_copies(phase), 1)
        batches = with_progress(
            batches.take(steps),
            steps,
            "measuring batch statistics",
            verbose=self._task.verbose,
        )
        self._model.measure_statistics(columns for columns, _ in batches)

    def _to_trained_units(self, labels):
        """Returns the units of labels; the first one that is trained is 0.

        Raises:
            ValueError: for labels of classes that are frozen.
        """
        first = self._model.network.trained_units.start
        units = self._model.classes.to_units(labels) - first
        if (frozen := np.asarray(labels)[units < 0]).size:
            raise ValueError(
                f"A phase has images of the classes {np.unique(frozen)[:10]}, "
                "which are not trained: the network's newest branch has logits "
                "for its own classes alone. Leave their exemplars out of the "
                "phase's sources, or use a network with one head for all."
            )
        return units

    def _record_epoch(self, epoch: int, logs: dict) -> None:
        """Records a finished epoch; called after all other callbacks."""
        training, overhead = self._clock.read()
        done = epoch + 1 - self._first_epoch
        self._backup.end_epoch(
            self._model,
            Progress(
                phase=self._index,
                epochs=done,
                stopped=bool(self._model.stop_training),
                epochs_before=self._steps.epochs - done,
                factor=self._rate.factor,
                train_seconds=training,
                overhead_seconds=overhead,
            ),
        )


def _fit_options(model, request: FitRequest) -> dict:
    """Returns the arguments of each phase's fit that the user has passed."""
    options = request.options
    data, steps = evaluation_data(
        model.distribute_strategy,
        unit_validation_data(model.classes, options.get("validation_data")),
        options.get("validation_steps"),
    )
    return {
        **options,
        "shuffle": False,  # the batches are shuffled already
        "validation_data": data,
        "validation_steps": steps,
        "validation_batch_size": options.get("validation_batch_size")
        or request.batch_size,
    }
