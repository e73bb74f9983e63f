"""One `fit` as one step of class-incremental learning."""

import dataclasses
import numbers

import keras

from keras_incremental.callbacks.agreement import (
    check_same_model,
    check_same_step,
)
from keras_incremental.callbacks.backup import (
    Backup,
    Progress,
    data_of,
    settings_of,
)
from keras_incremental.callbacks.clock import Clock
from keras_incremental.callbacks.fit_options import (
    batch_size_of,
    check_options,
)
from keras_incremental.callbacks.learning_rate import LearningRate
from keras_incremental.callbacks.one_run import AtEpochEnd, OneRun
from keras_incremental.callbacks.rollback import undone_on_error
from keras_incremental.callbacks.running_phase import RunningPhase
from keras_incremental.distribution import (
    check_strategy,
    is_chief,
    split_batches,
)
from keras_incremental.exemplars import ExemplarMemory, training_batches
from keras_incremental.export import check_publication, publish
from keras_incremental.labels import distinct_in_order, label_names
from keras_incremental.methods import EEIL, Method, Phase, Plan, Step
from keras_incremental.models import (
    FitRequest,
    IncrementalClassifier,
    IncrementalFit,
    evaluation_data,
    unit_validation_data,
)
from keras_incremental.samples import (
    DEFAULT_CACHE_BYTES,
    Samples,
    read_samples,
)


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What one step did and took.

    Attributes:
        new_labels: labels of the classes that were new.
        epochs: epochs run, all phases together.
        exemplars: images in the memory after the step.
        train_seconds: in epochs, validation left out.
        overhead_seconds: in everything else but validation: reading the data,
            growth, teacher, balanced set, selection, memory update.
        details: what the method notes about the step.
    """

    new_labels: list
    epochs: int
    exemplars: int
    train_seconds: float
    overhead_seconds: float
    details: dict


class IncrementalCallback(keras.callbacks.Callback, IncrementalFit):
    """Makes `fit` teach new classes and keep the old ones.

    Put it among the callbacks of `IncrementalClassifier.fit`, and pass new
    data only. It finds the new classes, grows the head, sets the teacher,
    mixes in the exemplars, trains the phases of the method, and updates the
    memory. Other callbacks and the progress bar see one run of all epochs.

    A step is all or nothing: if anything raises, or the user interrupts, the
    model's weights and classes and the memory are what they were before.
    Publication comes after the step, and if it fails the step stays learned.
    Batches have at most the size of the dataset's first one, or `fit`'s
    `batch_size`; the sizes of those of an epoch differ by one at most.
    `model.stop_training` ends the phase it is set in. `EarlyStopping` and
    `ReduceLROnPlateau` start anew with each phase; the former restores the best
    weights of a phase at its end.

    Args:
        memory: the exemplar memory, or `None` to keep no old data.
        method: `EEIL(...)`, `PartialSharing(...)`, `FineTune()`, `Joint()`, ...
        class_names: names by label (dict, or list indexed by label).
        augment: an object of `keras_incremental.augmentation`, or `None`; it
            never touches the stored exemplars.
        seed: shuffles, augmentation and gradient noise are drawn from
            (seed, heads, phase, epoch).
        cache_bytes: a dataset that takes more than this is streamed; arrays
            are used as they are. It bounds stored augmentation, and the kept
            outputs of a frozen trunk, as well.
        backup_dir: a folder for backups after each epoch and each step. The
            same program, run again after its process was killed, goes on where
            it was: fits that were finished return at once, with an empty
            history and model and memory as the last one left them, and the fit
            that was killed goes on after its last finished epoch. The same
            seeds give the same weights as without the interruption. The state
            of other callbacks is not kept.
        publish_to: a folder that a TensorFlow Serving server polls; the model
            is published there after every step (`keras_incremental.export`).
            What can be known to fail is an error before the step.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if the seed is not an integer of 0 or more.

    >>> IncrementalCallback(ExemplarMemory(100)).method.finetune_epochs
    30
    """

    def __init__(
        self,
        memory: ExemplarMemory | None = None,
        method: Method | None = None,
        class_names=None,
        augment=None,
        seed: int = 0,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        backup_dir=None,
        publish_to=None,
    ):
        super().__init__()
        self.async_safe = True
        self.memory = memory
        self.method = EEIL() if method is None else method
        self.class_names = class_names
        self.augment = augment
        self.cache_bytes = cache_bytes
        self.reports: list[StepReport] = []
        self._past: list[Samples] = []
        self._phase: RunningPhase | None = None
        self._running = False
        self._clock = Clock()
        self._backup_dir, self._backup = backup_dir, None
        self._publish_to = publish_to
        self._epochs = 0
        _check_kind("memory", memory, ExemplarMemory)
        _check_kind("method", method, Method)
        if (
            isinstance(seed, bool)
            or not isinstance(seed, numbers.Integral)
            or seed < 0
        ):
            raise ValueError(f"seed={seed!r}; expected an integer >= 0.")
        self.seed = int(seed)
        if not (augment is None or callable(augment)):
            raise TypeError(
                f"augment={augment!r}; expected an object such as "
                "keras_incremental.augmentation.CropFlip(), or None."
            )

    @property
    def is_backed_up(self) -> bool:
        """Whether steps are kept in a backup folder."""
        return self._backup_dir is not None

    @property
    def train_function_traces(self) -> int:
        """The most traces that any process of a backed-up run has needed."""
        return 0 if self._backup is None else self._backup.traces

    def run_fit(self, model: IncrementalClassifier, request: FitRequest):
        """Runs one step; `IncrementalClassifier.fit` calls it."""
        self._clock = Clock()
        check_options(request)
        check_strategy(
            model.distribute_strategy,
            [*model.weights, *model.optimizer.variables],
        )
        self.method.check(model, self.memory)
        samples = read_samples(
            request.x,
            request.y,
            image_shape=model.input_shape[1:],
            cache_bytes=self.cache_bytes,
            verbose=int(request.verbose != 0),
        )
        data = data_of(samples, request.epochs, batch_size_of(request, samples))
        progress = self._open_backup(model, data)
        if self._is_finished():
            return self._skip(model, samples)
        step = self._prepare(model, samples, request)
        try:
            with undone_on_error(model, self.memory):
                plan = self.method.plan(step)
                check_same_model(model)
                history = self._train(step, plan.phases, request, progress)
                self._update_memory(step, plan)
                report = self._report(step.new_labels, plan.finish())
                if self._backup is not None:
                    self._backup.finish_step(
                        model, self.memory, data, dataclasses.asdict(report)
                    )
        except BaseException:
            if self._backup is not None:
                self._backup.forget_progress()
            raise
        self.reports.append(report)
        if self.method.keeps_all_data:
            self._past.append(samples)
        self._publish(model)
        return history

    # What Keras calls within the run.

    def on_train_begin(self, logs=None):
        if self._running:
            return
        if isinstance(self.model, IncrementalClassifier):
            raise TypeError(
                "fit got an IncrementalCallback within another callback, a "
                "CallbackList perhaps. Pass callbacks=[incremental, ...]."
            )
        raise TypeError(
            f"IncrementalCallback got a {type(self.model).__name__}; it "
            "works in the fit of a keras_incremental.IncrementalClassifier "
            "alone. Wrap the network: IncrementalClassifier(backbone)."
        )

    def on_epoch_begin(self, epoch, logs=None):
        self._clock.begin_epoch()
        if self._phase is not None:
            self._phase.begin_epoch(epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.model.average_statistics()
        self._clock.end_epoch()
        self._epochs += 1
        if self._phase is not None and logs is not None:
            logs["learning_rate"] = self._phase.rate.now

    def on_test_begin(self, logs=None):
        self._clock.begin_test()

    def on_test_end(self, logs=None):
        self._clock.end_test()

    # The backup.

    def _open_backup(self, model, data: dict) -> Progress:
        """Reads the backup at the first fit; returns how far this one is."""

        def settings():
            return settings_of(
                model, self.memory, self.method, self.augment, self.seed
            )

        index, backup, found = len(self.reports), self._backup, Progress()
        if backup is None and self._backup_dir is not None:
            backup = Backup(
                self._backup_dir,
                settings(),
                writes=is_chief(model.distribute_strategy),
            )
        if backup is not None:
            backup.check_data(index, data)
            found = backup.progress_of(index) or found
        finished = None if backup is None else backup.finished_steps
        check_same_step(
            model,
            self.memory,
            lambda: (settings(), data, index, finished, found),
        )
        if backup is not self._backup:
            backup.restore_step(model, self.memory)
        elif backup is not None:
            backup.check_model(model)
        self._backup, self._data = backup, data
        self._clock.add_earlier(found.train_seconds, found.overhead_seconds)
        return found

    def _is_finished(self) -> bool:
        """Whether a process before this one has done the step."""
        return (
            self._backup is not None
            and len(self.reports) < self._backup.finished_steps
        )

    def _skip(self, model, samples: Samples):
        """Takes the step's report from the backup; the model has it already."""
        index = len(self.reports)
        self.reports.append(StepReport(**self._backup.report(index)))
        is_newest = index + 1 == self._backup.finished_steps
        if is_newest and not self._backup.is_published(index):
            self._publish(model)
        if self.method.keeps_all_data:
            self._past.append(samples)
        history = keras.callbacks.History()
        history.set_model(model)
        history.on_train_begin()
        return history

    def _back_up_epoch(self, index: int, epochs: int, model) -> None:
        """Keeps a finished epoch; called after all other callbacks."""
        training, overhead = self._clock.read()
        self._backup.end_epoch(
            model,
            self._data,
            Progress(
                phase=index,
                epochs=epochs,
                stopped=bool(model.stop_training),
                epochs_before=self._epochs - epochs,
                factor=self._phase.rate.factor,
                train_seconds=training,
                overhead_seconds=overhead,
            ),
        )

    def _publish(self, model) -> None:
        """Publishes the model as a step has left it; the chief alone does."""
        if self._publish_to is None or not is_chief(model.distribute_strategy):
            return
        publish(model, self._publish_to)
        if self._backup is not None:
            self._backup.note_published()

    # The step.

    def _prepare(self, model, samples: Samples, request: FitRequest) -> Step:
        """Finds the new classes and makes room for them."""
        unknown = set(model.classes.unknown(samples.labels))
        new = [k for k in distinct_in_order(samples.labels) if k in unknown]
        self._check_past(model)
        self._check_memory(model, samples)
        names = label_names(new, self.class_names)
        if self._publish_to is not None:
            check_publication(
                self._publish_to,
                [*model.class_names, *names],
                model.input_shape[1:],
            )
        model.reserve(len(new))
        model.use_teacher(self.method.needs_teacher)
        return Step(
            model,
            self.memory,
            samples,
            tuple(self._past),
            new,
            names,
            model.num_classes,
            request.epochs,
            batch_size_of(request, samples),
            self.augment,
            self.seed,
            self.cache_bytes,
            int(request.verbose != 0),
        )

    def _train(self, step, phases: list[Phase], request, progress: Progress):
        epoch_end = AtEpochEnd(self._back_up_epoch if self._backup else None)
        others = [item for item in request.callbacks if item is not self]
        run = OneRun(
            [self, *others, epoch_end],
            add_history=True,
            add_progbar=request.verbose != 0,
            model=step.model,
            verbose=request.verbose,
            epochs=sum(phase.epochs for phase in phases),
            steps=None,
        )
        options = _fit_options(step.model, request)
        rate = LearningRate(step.model.optimizer)
        self._running = True
        self._epochs = progress.epochs_before + progress.epochs
        try:
            run.begin()
            first = 0
            for index, phase in enumerate(phases):
                if index:
                    run.begin_phase()
                self._phase = RunningPhase(phase, first, step.model, rate)
                epoch_end.begin(index, first)
                self._run_phase(index, step, run, options, progress)
                first += phase.epochs
        finally:
            self._phase, self._running = None, False
            rate.restart()
            step.model.training_settings.reset()
        run.end()
        return step.model.history

    def _run_phase(self, index, step, run, options, progress) -> None:
        """Runs a phase, or what is left of it after a kill."""
        if index < progress.phase:
            return
        phase, first = self._phase.phase, self._phase.first_epoch
        model = step.model
        done = progress.epochs if index == progress.phase else 0
        if done == phase.epochs or (done and progress.stopped):
            model.restart_optimizer()
            self._backup.restore_epoch(model)
            # As Keras at the end of a fit: averages become the weights.
            model.optimizer.finalize_variable_values(model.trainable_variables)
            return
        if done:
            self._backup.restore_phase_start(model)
        elif self._backup is not None:
            self._backup.begin_phase(model)
        seed = (self.seed, len(model.heads), index)
        self._phase.begin(seed)
        batches, steps = training_batches(
            phase.sources(),
            model.to_training_units,
            batch_size=step.batch_size,
            augment=self.augment if phase.augmented else None,
            teacher_logits=model.teacher_logits if model.has_teacher else None,
            seed=seed,
            first_epoch=done,
            cache_bytes=self.cache_bytes,
            replicas=model.distribute_strategy.num_replicas_in_sync,
        )
        batches = batches.map(
            lambda batch, units: (phase.as_input(batch), units)
        )
        if done:
            self._backup.restore_epoch(model)
            self._phase.rate.resume(progress.factor)
        run.expect_steps(steps)
        model.fit_units(
            split_batches(model.distribute_strategy, batches),
            steps_per_epoch=steps,
            initial_epoch=first + done,
            epochs=first + phase.epochs,
            callbacks=run,
            **options,
        )

    def _update_memory(self, step: Step, plan: Plan) -> None:
        if self.memory is not None:
            self.memory.update(
                step.samples,
                step.model.extract_features,
                None if plan.features is None else plan.features(),
                known=step.model.labels,
            )

    def _check_past(self, model) -> None:
        for samples in self._past:
            if strangers := model.classes.unknown(samples.labels):
                raise ValueError(
                    "The callback keeps the data of steps with the classes "
                    f"{strangers[:10]}, which this model does not know. Make "
                    "an IncrementalCallback of its own for each model."
                )

    def _check_memory(self, model, samples) -> None:
        if self.memory is None:
            return
        strangers = [k for k in self.memory.labels if k not in model.classes]
        if strangers:
            raise ValueError(
                f"The memory holds classes {strangers[:10]} that the model "
                f"does not know; it knows {model.labels[:10]}. Pass the "
                "memory that was saved with this model."
            )
        missing = [k for k in model.labels if k not in self.memory]
        if len(self.memory) and missing:
            raise ValueError(
                f"The memory has no exemplar of classes {missing[:10]} that "
                f"the model knows; it holds {self.memory.labels[:10]}. Pass "
                "the memory that was saved with this model, or an empty one."
            )
        self.memory.check_images(samples.image_spec)
        self.memory.check_room(
            distinct_in_order(samples.labels), samples.image_spec
        )

    def _report(self, new_labels, details: dict) -> StepReport:
        training, overhead = self._clock.read()
        exemplars = 0 if self.memory is None else len(self.memory)
        return StepReport(
            new_labels, self._epochs, exemplars, training, overhead, details
        )


def _fit_options(model: IncrementalClassifier, request: FitRequest) -> dict:
    """The arguments of each phase's fit that the user has passed."""
    data, steps = evaluation_data(
        model.distribute_strategy,
        unit_validation_data(
            model.classes, request.options.get("validation_data")
        ),
        request.options.get("validation_steps"),
        model.steps_per_execution,
    )
    return {
        **request.options,
        "shuffle": False,  # the batches are shuffled already
        "validation_data": data,
        "validation_steps": steps,
        "validation_batch_size": request.options.get("validation_batch_size")
        or request.batch_size,
    }


def _check_kind(name: str, value, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(
            f"{name} is a {type(value).__name__}; expected "
            f"a keras_incremental {kind.__name__} or None."
        )
