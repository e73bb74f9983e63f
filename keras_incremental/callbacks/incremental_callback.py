"""One `fit` as one task of class-incremental learning."""

import dataclasses
import logging
import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence

import keras

from keras_incremental._types import PathLike
from keras_incremental.callbacks.fit_options import (
    batch_size_of,
    check_class_weight,
    check_options,
)
from keras_incremental.callbacks.publication import Publication
from keras_incremental.callbacks.settings import call_of, data_of, settings_of
from keras_incremental.callbacks.task_callback import tell_of_task
from keras_incremental.distribution import (
    check_strategy,
    is_chief,
    is_multi_worker,
)
from keras_incremental.exemplars import ExemplarMemory
from keras_incremental.export import Gate
from keras_incremental.labels import (
    ClassIndex,
    carried_names,
    distinct_in_order,
    label_names,
)
from keras_incremental.methods import EEIL, Method, TaskStep
from keras_incremental.models import (
    FitRequest,
    IncrementalClassifier,
    IncrementalFit,
)
from keras_incremental.progress import told_if_long
from keras_incremental.samples import (
    DEFAULT_CACHE_BYTES,
    Pixels,
    Samples,
    read_samples,
)
from keras_incremental.training import (
    Backup,
    Clock,
    TaskReport,
    ValidationData,
    check_same_step,
    note_on_few_images,
    note_on_known_classes,
    run_task,
)

_logger = logging.getLogger(__name__)


class IncrementalCallback(keras.callbacks.Callback, IncrementalFit):
    """Makes `fit` teach new classes and keep the old ones.

    Put it among the callbacks of `IncrementalClassifier.fit`, and pass new
    data only. It finds the new classes, grows the model, trains the phases of
    the method with the exemplars mixed in, and updates the memory. Other
    callbacks and the progress bar see one run of all epochs.

    A task is all or nothing: if anything raises, or the user interrupts, the
    model's weights and classes and the memory are what they were before.
    Publication comes after the task, and if it fails the task stays learned.
    Batches have at most the size of the dataset's first one, or `fit`'s
    `batch_size`; the sizes of those of an epoch differ by one at most.
    `model.stop_training` ends the phase it is set in. `EarlyStopping` and
    `ReduceLROnPlateau` start anew with each phase; the former restores the best
    weights of a phase at its end.

    Args:
        memory: the exemplar memory, or `None` to keep no old data.
        method: `EEIL(...)`, `PartialSharing(...)`, `FineTune()`, `Joint()`, ...
        class_names: names by label (dict, or list indexed by label). By default
            those that the data carries, such as the `class_names` of
            `keras.utils.image_dataset_from_directory`. Either is refused where
            it gives a known class another name.
        augment: an object of `keras_incremental.augmentation`, or `None`; it
            never touches the stored exemplars.
        seed: shuffles, augmentation and gradient noise are drawn from
            (seed, heads, phase, epoch).
        cache_bytes: a dataset that takes more than this is kept in a file of
            the temporary folder for as long as the method needs it; arrays are
            used as they are. It bounds stored augmentation, and the cached
            outputs of a frozen trunk, as well.
        backup_dir: a folder for backups after each epoch and each task. The
            same program, run again after its process was killed, goes on where
            it was: fits that were finished return at once, with an empty
            history and model and memory as the last one left them, and the fit
            that was killed goes on after its last finished epoch. The same
            seeds give the same weights as without the interruption. The state
            of other callbacks is not kept. Other images, labels, names of
            classes, options, optimizer, loss or backbone are an error that
            names them; names of layers do not count. While a process uses the
            folder, another one gets an error; an object store cannot be locked,
            so that of two processes one may learn of the other, by an error as
            well, an epoch later.
        publish_to: a folder that a TensorFlow Serving server polls; the model
            is published there after every task (`keras_incremental.export`).
            What can be known to fail is an error before the task.
        publish_if: a `keras_incremental.export.Gate`, which judges by `fit`'s
            validation data; a model that it refuses is not published, and the
            version that is served stays. Without one every task is published.
        measure_statistics: whether the moving statistics of batch-normalisation
            layers are measured over a phase's data at its end. Otherwise they
            are left to the layers' momentum, which short phases never catch up
            with.

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
        class_names: Mapping | Sequence | None = None,
        augment: Callable | None = None,
        seed: int = 0,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        backup_dir: PathLike | None = None,
        publish_to: PathLike | None = None,
        publish_if: Gate | None = None,
        measure_statistics: bool = True,
    ):
        super().__init__()
        self.memory = memory
        self.method = EEIL() if method is None else method
        self.class_names = class_names
        self.augment = augment
        self.cache_bytes = cache_bytes
        self.reports: list[TaskReport] = []
        self._past: list[Samples] = []
        self._pixels: Pixels | None = None  # of the task before
        self._backup_dir = backup_dir
        self._backup: Backup | None = None  # opened by the first fit
        self._publication = Publication(publish_to, publish_if)
        self.measure_statistics = bool(measure_statistics)
        _check_kind("memory", memory, ExemplarMemory)
        _check_kind("method", method, Method)
        if not isinstance(seed, numbers.Integral) or seed < 0:
            raise ValueError(f"seed={seed!r}; expected an integer >= 0.")
        self.seed = int(seed)
        if not (augment is None or callable(augment)):
            raise TypeError(
                f"augment={augment!r}; expected an object such as "
                "keras_incremental.augmentation.CropFlip(), or None."
            )

    def __repr__(self):
        return (
            f"<IncrementalCallback: {len(self.reports)} tasks learned by "
            f"{call_of(self.method)} with {self.memory}>"
        )

    @property
    def is_backed_up(self) -> bool:
        """Whether steps are kept in a backup folder."""
        return self._backup_dir is not None

    @property
    def train_function_traces(self) -> int:
        """The most traces that any process of a backed-up run has needed."""
        return 0 if self._backup is None else self._backup.traces

    @property
    def needs_optimizer(self) -> bool:
        """Whether the method has epochs of training."""
        return self.method.needs_optimizer

    def run_fit(
        self, model: IncrementalClassifier, request: FitRequest
    ) -> keras.callbacks.History:
        """Learns one task; `IncrementalClassifier.fit` calls it."""
        clock = Clock()
        check_options(model, request)
        check_strategy(
            model.distribute_strategy,
            [*model.weights, *model.optimizer.variables],
        )
        self.method.check(model, self.memory)
        backup = self._open_backup(model)
        samples = read_samples(
            request.x,
            request.y,
            image_shape=model.input_shape[1:],
            cache_bytes=self.cache_bytes,
            verbose=int(request.verbose != 0),
            like=self._like(),
        )
        index = len(self.reports)
        progress = self._resume(model, backup, request, samples, index)
        if index < self._backup.finished_tasks:
            return self._skip(model, samples, request, index)
        clock.add_earlier(progress.train_seconds, progress.overhead_seconds)
        task = self._task(model, samples, request)
        history, report = run_task(
            self.method,
            task,
            request,
            self._backup,
            progress,
            clock,
            self._validation(task, request, clock),
        )
        self._keep(samples, report)
        with told_if_long("publishing", int(request.verbose != 0)):
            self._publish(model)
        tell_of_task(self, model, request, samples)
        return history

    def on_train_begin(self, logs=None):
        raise TypeError(
            f"IncrementalCallback got a {type(self.model).__name__}; it works "
            "in the fit of a keras_incremental.IncrementalClassifier alone, "
            "and not within another callback. Pass callbacks=[incremental, "
            "...] to IncrementalClassifier(backbone).fit."
        )

    # The backup.

    def _is_compared(self, model) -> bool:
        """Whether another process is to have the same run."""
        strategy = model.distribute_strategy
        return self.is_backed_up or is_multi_worker(strategy)

    def _open_backup(self, model) -> Backup:
        """Reads the backup at the first fit, before that reads any data."""
        if self.is_backed_up and self._backup is not None:
            return self._backup
        settings = {}
        if self._is_compared(model):
            settings = settings_of(model, self)
        writes = is_chief(model.distribute_strategy)
        return Backup(self._backup_dir, settings, writes)

    def _resume(
        self, model, backup: Backup, request: FitRequest, samples, index: int
    ):
        """Returns how far this fit is, after a kill."""
        data = {}
        if self._is_compared(model):
            data = data_of(samples, model, self.class_names, request)
        progress = backup.begin_task(index, data)
        check_same_step(
            model,
            self.memory,
            (backup.settings, data, index, backup.finished_tasks, progress),
        )
        if backup is self._backup:
            backup.check_model(model)
        else:
            backup.restore_task(model, self.memory)
        self._backup = backup
        return progress

    def _skip(self, model, samples: Samples, request: FitRequest, index: int):
        """Takes a task's report from the backup; the model has it already."""
        self._keep(samples, self._backup.report(index))
        is_newest = index + 1 == self._backup.finished_tasks
        if is_newest and not self._backup.is_published(index):
            self._publish(model, is_resumed=True)
        tell_of_task(self, model, request, samples)
        history = keras.callbacks.History()
        history.set_model(model)
        history.on_train_begin()
        return history

    def _keep(self, samples: Samples, report: TaskReport) -> None:
        """Keeps what is left of a task that is learned."""
        self.reports.append(report)
        self._pixels = samples.pixels
        if self.method.keeps_all_data:
            self._past.append(samples)

    def _publish(self, model, is_resumed: bool = False) -> None:
        """Publishes the model as a task has left it, or notes why not."""
        report = self._publication(model, self.reports[-1], is_resumed)
        if report is not self.reports[-1]:
            self.reports[-1] = report
            self._backup.note_published(model, report)

    # The task.

    def _task(self, model, samples: Samples, request: FitRequest) -> TaskStep:
        """Finds the new classes, and checks that the task can be learned."""
        unknown = set(model.classes.unknown(samples.labels))
        new = [k for k in distinct_in_order(samples.labels) if k in unknown]
        names = self._names(model, new, request)
        check_class_weight(request, [*model.labels, *new])
        self._check_past(model)
        self._check_memory(model, samples)
        self._publication.check(model, names)
        if note := note_on_few_images(samples.labels, new, names):
            warnings.warn(note, stacklevel=5)
        if note := note_on_known_classes(samples.labels, new, model.classes):
            _logger.warning(note)
        return TaskStep(
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
            self.measure_statistics,
            int(request.verbose != 0),
        )

    def _names(self, model, new: list, request: FitRequest) -> list[str]:
        """Returns the names of new classes.

        Raises:
            ValueError: for known labels by another name.
        """
        carried = carried_names(request.x)
        model.classes.check_names(self.class_names, "class_names")
        model.classes.check_names(carried, "The dataset")
        given = carried if self.class_names is None else self.class_names
        names = label_names(new, given)
        classes = ClassIndex(
            [*model.labels, *new], [*model.class_names, *names]
        )
        validation = request.options.get("validation_data")
        classes.check_names(carried_names(validation), "validation_data")
        return names

    def _like(self) -> Pixels | None:
        """Returns what the images of a task have to be like."""
        like = None if self.memory is None else self.memory.pixels
        if like is None and self._pixels is not None:
            return dataclasses.replace(self._pixels, dtype=None)
        return like

    def _validation(
        self, task: TaskStep, request: FitRequest, clock: Clock
    ) -> ValidationData:
        """Reads the validation data once, to refuse it before the task."""
        validation, model = ValidationData(request), task.model
        with clock.apart():
            validation.before = validation.count_hits(model)
        self._publication.check_validation(
            validation.before, model.labels, task.new_labels
        )
        return validation

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
        self.memory.check_classes(model.labels)
        missing = [k for k in model.labels if k not in self.memory]
        if len(self.memory) and missing:
            raise ValueError(
                f"The memory has no exemplar of classes {missing[:10]} that "
                f"the model knows; it holds {self.memory.labels[:10]}. Pass "
                "the memory that was saved with this model, or an empty one."
            )
        self.memory.check_images(samples.image_spec)
        self.memory.check_room(distinct_in_order(samples.labels))


def _check_kind(name: str, value, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(
            f"{name} is a {type(value).__name__}; expected "
            f"a keras_incremental {kind.__name__} or None."
        )
