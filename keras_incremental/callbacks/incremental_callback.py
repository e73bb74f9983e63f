"""One `fit` as one step of class-incremental learning."""

import dataclasses
import time

import keras

from keras_incremental.callbacks.learning_rate import LearningRate
from keras_incremental.callbacks.one_run import OneRun
from keras_incremental.callbacks.rollback import undone_on_error
from keras_incremental.exemplars import ExemplarMemory, training_batches
from keras_incremental.labels import distinct_in_order, label_names
from keras_incremental.methods import EEIL, Method, Phase, Step
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

_DEFAULT_BATCH_SIZE = 32


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
    """

    new_labels: list
    epochs: int
    exemplars: int
    train_seconds: float
    overhead_seconds: float


class IncrementalCallback(keras.callbacks.Callback, IncrementalFit):
    """Makes `fit` teach new classes and keep the old ones.

    Put it among the callbacks of `IncrementalClassifier.fit`, and pass new
    data only. It finds the new classes, grows the head, sets the teacher,
    mixes in the exemplars, trains the phases of the method, and updates the
    memory. Other callbacks and the progress bar see one run of all epochs.

    A step is all or nothing: if anything raises, or the user interrupts, the
    model's weights and classes and the memory are what they were before.
    `model.stop_training` (`EarlyStopping`) ends the phase it is set in.

    Args:
        memory: the exemplar memory, or `None` to keep no old data.
        method: `EEIL(...)`, `FineTune()`, `Joint()`, ...
        class_names: names by label (dict, or list indexed by label).
        augment: an object of `keras_incremental.augmentation`, or `None`; it
            never touches the stored exemplars.
        seed: shuffles, augmentation and gradient noise are drawn from
            (seed, heads, phase, epoch).
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
        self._phase: _RunningPhase | None = None
        self._clock = _Clock()
        _check_kind("memory", memory, ExemplarMemory)
        _check_kind("method", method, Method)

    def run_fit(self, model: IncrementalClassifier, request: FitRequest):
        """Runs one step; `IncrementalClassifier.fit` calls it."""
        self._clock = _Clock()
        _check_options(request)
        samples = read_samples(
            request.x,
            request.y,
            image_shape=model.input_shape[1:],
            cache_bytes=self.cache_bytes,
            verbose=int(request.verbose != 0),
        )
        new = model.classes.unknown(samples.labels)
        self._check_memory(model, samples, len(new))
        new = [n for n in distinct_in_order(samples.labels) if n in set(new)]
        names = label_names(new, self.class_names)
        model.reserve(len(new))
        model.use_teacher(self.method.needs_teacher)
        with undone_on_error(model):
            known = model.num_classes
            if new:
                model.add_classes(new, names)
            step = Step(
                model,
                self.memory,
                samples,
                tuple(self._past),
                known,
                request.epochs,
                _batch_size(request),
            )
            history = self._train(step, request)
            if self.memory is not None:
                self.memory.update(samples, model.extract_features)
        if self.method.keeps_all_data:
            self._past.append(samples)
        self._report(new, len(history.epoch))
        return history

    # What Keras calls within the run.

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

    def _train(self, step: Step, request: FitRequest):
        phases = self.method.phases(step)
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
        run.begin()
        try:
            first = 0
            for index, phase in enumerate(phases):
                self._phase = _RunningPhase(phase, first, step.model, rate)
                self._run_phase(index, step, run, validation)
                first += phase.epochs
        finally:
            self._phase = None
            rate.restart()
            step.model.training_settings.reset()
        run.end()
        return step.model.history

    def _run_phase(self, index, step, run, validation) -> None:
        phase, first = self._phase.phase, self._phase.first_epoch
        model = step.model
        seed = (self.seed, len(model.head.heads), index)
        batches, steps = training_batches(
            phase.sources(),
            model.classes.to_units,
            batch_size=step.batch_size,
            augment=self.augment,
            seed=seed,
            cache_bytes=self.cache_bytes,
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
        self.memory.check_images(samples.image_spec)
        self.memory.quotas(model.num_classes + new_classes)

    def _report(self, new_labels, epochs: int) -> None:
        training, overhead = self._clock.read()
        exemplars = 0 if self.memory is None else len(self.memory)
        self.reports.append(
            StepReport(new_labels, epochs, exemplars, training, overhead)
        )


class _RunningPhase:
    """A phase while it is trained."""

    def __init__(self, phase: Phase, first_epoch: int, model, rate):
        self.phase, self.first_epoch, self.rate = phase, first_epoch, rate
        self._model, self._settings = model, model.training_settings

    def begin(self, seed) -> None:
        if self.phase.distilled_units:
            self._model.update_teacher()
        self._settings.distilled_units.assign(self.phase.distilled_units)
        self._settings.temperature.assign(self.phase.temperature)
        base, *rest = seed
        self._settings.noise_seed.assign(
            [base, sum(part << (8 * i) for i, part in enumerate(rest))]
        )
        self._model.restart_optimizer()
        self.rate.restart()

    def begin_epoch(self, epoch: int) -> None:
        epoch -= self.first_epoch
        self.rate.apply(self.phase.learning_rate_factor(epoch))
        self._settings.noise_stddev.assign(self.phase.noise_stddev(epoch))


class _Clock:
    """Splits the seconds of a step into training, validation and the rest."""

    def __init__(self):
        self._start = self._epoch = self._test = time.perf_counter()
        self._in_epochs = self._in_tests = 0.0

    def begin_epoch(self) -> None:
        self._epoch = time.perf_counter()

    def end_epoch(self) -> None:
        self._in_epochs += time.perf_counter() - self._epoch

    def begin_test(self) -> None:
        self._test = time.perf_counter()

    def end_test(self) -> None:
        self._in_tests += time.perf_counter() - self._test

    def read(self) -> tuple[float, float]:
        """Returns the seconds of training, and of all but validation."""
        total = time.perf_counter() - self._start
        return self._in_epochs - self._in_tests, total - self._in_epochs


def _batch_size(request: FitRequest) -> int:
    if request.batch_size is not None:
        return request.batch_size
    element_spec = getattr(request.x, "element_spec", None)
    if element_spec is None:
        return _DEFAULT_BATCH_SIZE
    if element_spec[0].shape[0] is not None:
        return element_spec[0].shape[0]
    return int(next(iter(request.x))[0].shape[0])


_REFUSED = {
    "sample_weight": "every image weighs the same in the loss",
    "class_weight": "the balanced fine-tuning weighs classes alike",
    "initial_epoch": "a step starts at its first epoch",
    "steps_per_epoch": "an epoch is one pass over new data and exemplars",
    "validation_split": "pass validation_data=(images, labels)",
}
_ACCEPTED = {
    "validation_data",
    "validation_steps",
    "validation_batch_size",
    "validation_freq",
    "shuffle",
}


def _check_options(request: FitRequest) -> None:
    for name, value in request.options.items():
        if name in _REFUSED and not (value is None or value == 0):
            raise ValueError(
                f"fit got {name}={value!r} beside an IncrementalCallback: "
                f"{_REFUSED[name]}. Leave it out."
            )
        if name not in _ACCEPTED and name not in _REFUSED:
            raise TypeError(f"fit got an unknown argument {name!r}.")
    if request.options.get("shuffle") not in (None, True):
        raise ValueError(
            "fit got shuffle=False beside an IncrementalCallback; new data "
            "and exemplars are always shuffled together. Leave it out."
        )
    if request.epochs < 1:
        raise ValueError(f"epochs={request.epochs}; expected 1 or more.")


def _check_kind(name: str, value, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(
            f"{name} is a {type(value).__name__}; expected "
            f"a keras_incremental {kind.__name__} or None."
        )
