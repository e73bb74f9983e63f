"""One `fit` as one step of class-incremental learning."""

import dataclasses

import keras

from keras_incremental.callbacks.clock import Clock
from keras_incremental.callbacks.fit_options import (
    batch_size_of,
    check_model,
    check_options,
)
from keras_incremental.callbacks.learning_rate import LearningRate
from keras_incremental.callbacks.one_run import OneRun
from keras_incremental.callbacks.rollback import undone_on_error
from keras_incremental.callbacks.running_phase import RunningPhase
from keras_incremental.exemplars import ExemplarMemory, training_batches
from keras_incremental.labels import distinct_in_order, label_names
from keras_incremental.methods import EEIL, Method, Phase, Plan, Step
from keras_incremental.models import (
    FitRequest,
    IncrementalClassifier,
    IncrementalFit,
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
    Batches have at most the size of the dataset's first one, or `fit`'s
    `batch_size`; those of an epoch are equally large.
    `model.stop_training` ends the phase it is set in; `EarlyStopping` starts
    anew with each phase, and restores the best weights of a phase at its end.

    Args:
        memory: the exemplar memory, or `None` to keep no old data.
        method: `EEIL(...)`, `PartialSharing(...)`, `FineTune()`, `Joint()`, ...
        class_names: names by label (dict, or list indexed by label).
        augment: an object of `keras_incremental.augmentation`, or `None`; it
            never touches the stored exemplars.
        seed: shuffles, augmentation and gradient noise are drawn from
            (seed, heads, phase, epoch); the order of streamed data from the
            iterator's state as well.
        cache_bytes: new data that takes more than this is streamed.

    Raises:
        TypeError: if an argument is of the wrong kind.

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
    ):
        super().__init__()
        self.async_safe = True
        self.memory = memory
        self.method = EEIL() if method is None else method
        self.class_names = class_names
        self.augment = augment
        self.seed, self.cache_bytes = seed, cache_bytes
        self.reports: list[StepReport] = []
        self._past: list[Samples] = []
        self._phase: RunningPhase | None = None
        self._running = False
        self._clock = Clock()
        _check_kind("memory", memory, ExemplarMemory)
        _check_kind("method", method, Method)
        if isinstance(seed, bool) or int(seed) != seed or seed < 0:
            raise ValueError(f"seed={seed!r}; expected an integer >= 0.")
        if not (augment is None or callable(augment)):
            raise TypeError(
                f"augment={augment!r}; expected an object such as "
                "keras_incremental.augmentation.CropFlip(), or None."
            )

    def run_fit(self, model: IncrementalClassifier, request: FitRequest):
        """Runs one step; `IncrementalClassifier.fit` calls it."""
        self._clock = Clock()
        check_options(request)
        self.method.check(model, self.memory)
        verbose = int(request.verbose != 0)
        samples = read_samples(
            request.x,
            request.y,
            image_shape=model.input_shape[1:],
            cache_bytes=self.cache_bytes,
            verbose=verbose,
        )
        check_model(model)
        unknown = set(model.classes.unknown(samples.labels))
        new = [k for k in distinct_in_order(samples.labels) if k in unknown]
        self._check_memory(model, samples, len(new))
        names = label_names(new, self.class_names)
        model.reserve(len(new))
        model.use_teacher(self.method.needs_teacher)
        step = Step(
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
            verbose,
        )
        with undone_on_error(model):
            plan = self.method.plan(step)
            history = self._train(step, plan.phases, request)
            self._update_memory(step, plan)
            details = plan.finish()
        if self.method.keeps_all_data:
            self._past.append(samples)
        self._report(new, len(history.epoch), details)
        return history

    # What Keras calls within the run.

    def on_train_begin(self, logs=None):
        if not self._running:
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
        self._clock.end_epoch()
        if self._phase is not None and logs is not None:
            logs["learning_rate"] = self._phase.rate.now

    def on_test_begin(self, logs=None):
        self._clock.begin_test()

    def on_test_end(self, logs=None):
        self._clock.end_test()

    def _train(self, step: Step, phases: list[Phase], request: FitRequest):
        run = OneRun(
            [self, *(item for item in request.callbacks if item is not self)],
            add_history=True,
            add_progbar=request.verbose != 0,
            model=step.model,
            verbose=request.verbose,
            epochs=sum(phase.epochs for phase in phases),
            steps=None,
        )
        validation = {
            **request.options,
            "shuffle": False,  # the batches are shuffled already
            "validation_data": unit_validation_data(
                step.model.classes, request.options.get("validation_data")
            ),
        }
        rate = LearningRate(step.model.optimizer)
        self._running = True
        try:
            run.begin()
            first = 0
            for index, phase in enumerate(phases):
                if index:
                    run.begin_phase()
                self._phase = RunningPhase(phase, first, step.model, rate)
                self._run_phase(index, step, run, validation)
                first += phase.epochs
        finally:
            self._phase, self._running = None, False
            rate.restart()
            step.model.training_settings.reset()
        run.end()
        return step.model.history

    def _run_phase(self, index, step, run, validation) -> None:
        phase, first = self._phase.phase, self._phase.first_epoch
        model = step.model
        seed = (self.seed, len(model.heads), index)
        batches, steps = training_batches(
            phase.sources(),
            model.to_training_units,
            batch_size=step.batch_size,
            augment=self.augment if phase.augmented else None,
            seed=seed,
            cache_bytes=self.cache_bytes,
        )
        batches = batches.map(
            lambda batch, units: (phase.as_input(batch), units)
        )
        self._phase.begin(seed)
        run.expect_steps(steps)
        model.fit_units(
            batches,
            steps_per_epoch=steps,
            initial_epoch=first,
            epochs=first + phase.epochs,
            callbacks=run,
            **validation,
        )

    def _update_memory(self, step: Step, plan: Plan) -> None:
        if self.memory is not None:
            self.memory.update(
                step.samples,
                step.model.extract_features,
                None if plan.features is None else plan.features(),
            )

    def _check_memory(self, model, samples, new_classes: int) -> None:
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
        self.memory.quotas(model.num_classes + new_classes)

    def _report(self, new_labels, epochs: int, details: dict) -> None:
        training, overhead = self._clock.read()
        exemplars = 0 if self.memory is None else len(self.memory)
        self.reports.append(
            StepReport(
                new_labels, epochs, exemplars, training, overhead, details
            )
        )


def _check_kind(name: str, value, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(
            f"{name} is a {type(value).__name__}; expected "
            f"a keras_incremental {kind.__name__} or None."
        )
