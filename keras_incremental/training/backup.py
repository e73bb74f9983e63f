"""What a run keeps on disk, to go on after the process was killed."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras

from keras_incremental.archives import variables_within
from keras_incremental.backups import BackupFolder
from keras_incremental.exemplars import ClassExemplars, ExemplarMemory
from keras_incremental.files import check_writable
from keras_incremental.models import IncrementalClassifier
from keras_incremental.training.task_report import TaskReport

_FIELDS = {
    "settings": dict,
    "tasks": list,
    "progress": dict | None,
    "traces": int,
}
_NAMED = 10  # differences in a message


@dataclasses.dataclass
class Progress:
    """How far a task has come.

    Attributes:
        phase: index of the phase.
        epochs: finished epochs of it.
        stopped: whether a callback has ended the phase.
        epochs_before: finished epochs of the phases before.
        factor: The learning-rate factor of the last epoch.
        train_seconds, overhead_seconds: spent on the task so far.
    """

    phase: int = 0
    epochs: int = 0
    stopped: bool = False
    epochs_before: int = 0
    factor: float = 1.0
    train_seconds: float = 0.0
    overhead_seconds: float = 0.0


class Backup:
    """Backs a run up after each epoch and each task, and restores it.

    What is written: the weights after the last finished task, at the start of
    the phase and after the last epoch, the optimizer's state, the memory, and
    how far the run has come. Everything else follows from these: growth,
    teacher, balanced set and shuffles are computed again as they were.

    Args:
        directory: the folder; `None` for a run that is not backed up.
        settings: JSON types; a backup with other settings is of another run.
        writes: whether this process writes; one of several workers does, and
            all read.

    Raises:
        BlockingIOError: if another process is writing into the folder.
        ValueError: if the folder holds a backup of another run, or none that
            is whole.
        OSError: if the folder cannot be written.
    """

    def __init__(self, directory, settings: dict, writes: bool = True):
        self._folder = None if directory is None else BackupFolder(directory)
        self._writes = writes and directory is not None
        if self._writes:
            check_writable(directory)
            self._folder.lock()
        self._blobs: dict[str, str] = {}
        self._data: dict = {}
        self._record = {
            "settings": settings,
            "tasks": [],
            "progress": None,
            "traces": 0,
        }
        found = None if directory is None else self._folder.read()
        if found is not None:
            self._record, self._blobs = found
            _check_record(self._record, self._folder.path)
            self._check_same("another run", self._record["settings"], settings)

    @property
    def settings(self) -> dict:
        """The settings of the run."""
        return self._record["settings"]

    @property
    def finished_tasks(self) -> int:
        """How many tasks the run has finished."""
        return len(self._record["tasks"])

    @property
    def traces(self) -> int:
        """The most traces of the train function in any process so far."""
        return self._record["traces"]

    def report(self, index: int) -> TaskReport:
        """Returns the report of a finished task."""
        return TaskReport(**self._record["tasks"][index]["report"])

    def is_published(self, index: int) -> bool:
        """Whether it is settled if a finished task's model is published."""
        return self._record["tasks"][index]["published"]

    def begin_task(self, index: int, data: dict) -> Progress:
        """Returns how far a task had come; nothing if it is new.

        Args:
            index: Position of the task in this run.
            data: what tells its data and options from others'; JSON types.

        Raises:
            ValueError: if the task had other data; with what differs.
        """
        self._data = data
        tasks, progress = self._record["tasks"], self._record["progress"]
        known = [*tasks, progress] if progress else tasks
        if index < len(known):
            self._check_same(
                f"a run whose task {index} had other data or options",
                known[index]["data"],
                data,
            )
        if progress is None or index != len(tasks):
            return Progress()
        return Progress(**progress["state"])

    def _check_same(self, what: str, before: Mapping, now: Mapping) -> None:
        if differing := [*_differences(before, now)]:
            more = len(differing) - _NAMED
            raise ValueError(
                f"backup_dir={str(self._folder.path)!r} holds the backup of "
                f"{what}: "
                + "; ".join(differing[:_NAMED])
                + (f"; and {more} more" if more > 0 else "")
                + ". Repeat that run's fits in order, or choose another folder."
            )

    # Tasks.

    def restore_task(
        self, model: IncrementalClassifier, memory: ExemplarMemory | None
    ) -> None:
        """Brings model and memory to where the last finished task left them."""
        if not self.finished_tasks:
            return
        structure = self._record["structure"]
        known = structure["labels"][: model.num_classes]
        if known != model.labels:
            raise ValueError(
                f"The model knows the classes {model.labels[:10]}, which are "
                f"not the first of the backup's, {structure['labels'][:10]}. "
                "Start from the model that the run started from."
            )
        arrays = self._folder.get(self._blobs["finished"])
        with variables_within(sum(array.nbytes for array in arrays.values())):
            model.restore_structure(structure)
        _assign(model.state_variables(), arrays, "the model")
        model.finalize_state()
        if memory is not None:
            stored = {
                label: ClassExemplars.from_arrays(
                    memory.storage,
                    self._folder.get(self._blobs[f"memory {index}"]),
                )
                for index, label in enumerate(self._record["memory_labels"])
            }
            memory.restore(stored)

    def check_model(self, model: IncrementalClassifier) -> None:
        """Refuses a model that is not the one of the last finished task.

        Raises:
            ValueError: if it does not know the classes of that task.
        """
        if not self.finished_tasks:
            return
        labels = self._record["structure"]["labels"]
        if model.labels[: len(labels)] != labels:
            raise ValueError(
                f"The run of backup_dir={str(self._folder.path)!r} has taught "
                f"a model the classes {labels[:10]}; this one knows "
                f"{model.labels[:10]}. Go on with that model; make an "
                "IncrementalCallback, and a folder, for each model."
            )

    def finish_task(
        self,
        model: IncrementalClassifier,
        memory: ExemplarMemory | None,
        report: TaskReport,
    ) -> None:
        """Backs up a finished task; if it raises, the task is not finished."""
        if self._folder is None:
            return
        task = {
            "data": self._data,
            "report": dataclasses.asdict(report),
            "published": False,
        }
        stored = {} if memory is None else memory.stored()
        record = {
            **self._record,
            "structure": model.structure(),
            "memory_labels": list(stored),
            "progress": None,
            "tasks": [*self._record["tasks"], task],
        }
        blobs = {"finished": self._put_all(model.state_variables())}
        for index, images in enumerate(stored.values()):
            blobs[f"memory {index}"] = self._put(images.to_arrays)
        self._commit(model, record, blobs)

    def note_published(
        self, model: IncrementalClassifier, report: TaskReport
    ) -> None:
        """Notes what became of the model after the last task."""
        if self._folder is not None:
            task = self._record["tasks"][-1]
            task.update(published=True, report=dataclasses.asdict(report))
            self._commit(model, self._record, self._blobs)

    # Within a task.

    def restore_phase_start(self, model: IncrementalClassifier) -> None:
        """Brings the weights to the start of the phase, after growth."""
        self._assign("phase", model.state_variables(), "the model")

    def restore_epoch(self, model: IncrementalClassifier) -> None:
        """Brings weights and optimizer to the end of the last epoch."""
        self._assign("model", model.state_variables(), "the model")
        self._assign("optimizer", model.optimizer.variables, "the optimizer")

    def begin_phase(self, model: IncrementalClassifier) -> None:
        """Keeps the weights at the start of a phase."""
        self._blobs["phase"] = self._put_all(model.state_variables())

    def end_epoch(
        self, model: IncrementalClassifier, progress: Progress
    ) -> None:
        """Backs up a finished epoch, which all callbacks have seen."""
        self._blobs["model"] = self._put_all(model.state_variables())
        self._blobs["optimizer"] = self._put_all(model.optimizer.variables)
        state = dataclasses.asdict(progress)
        self._record["progress"] = {"state": state, "data": self._data}
        self._commit(model, self._record, self._blobs)

    def fail_task(self) -> None:
        """The task was undone: the next fit starts it anew."""
        self._record["progress"] = None

    def _commit(self, model: IncrementalClassifier, record, blobs) -> None:
        record["traces"] = max(self.traces, model.train_function_traces)
        if self._writes:
            self._folder.commit(record, blobs)
        self._record, self._blobs = record, blobs

    def _put_all(self, values: Sequence) -> str | None:
        return self._put(
            lambda: {
                str(index): keras.ops.convert_to_numpy(value)
                for index, value in enumerate(values)
            }
        )

    def _put(self, arrays: Callable[[], dict]) -> str | None:
        return self._folder.put(arrays()) if self._writes else None

    def _assign(self, blob: str, variables: Sequence, what: str) -> None:
        _assign(variables, self._folder.get(self._blobs[blob]), what)


def _check_record(record: dict, path) -> None:
    """Refuses a record with other fields or types than a backup has.

    Raises:
        ValueError: naming the folder, and what is wrong.
    """
    try:
        for field, types in _FIELDS.items():
            if not isinstance(record[field], types):
                raise TypeError(f"{field} is {record[field]!r}")
        for task in record["tasks"]:
            TaskReport(**task["report"])
            if not isinstance(task["data"], dict):
                raise TypeError(f"data is {task['data']!r}")
        if record["tasks"]:
            labels = record["structure"]["labels"]
            if not {*record["memory_labels"]} <= {*labels}:
                raise ValueError("the memory has classes the model has not")
        if record["progress"] is not None:
            _check_progress(record["progress"]["state"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"The newest backup in {path} is damaged: {error!r}. Remove the "
            "folder to start anew."
        ) from error


def _check_progress(state: dict) -> None:
    Progress(**state)
    for name, value in state.items():
        if not isinstance(value, int | float) or value < 0:
            raise ValueError(f"{name} is {value!r}")


def _differences(before, now, name: str = "") -> Iterator[str]:
    """Says of each value in nested JSON types that differs where it is."""
    if before == now:
        return
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            path = f"{name}.{key}" if name else key
            yield from _differences(before.get(key), now.get(key), path)
    elif (
        isinstance(before, list)
        and isinstance(now, list)
        and len(before) == len(now)
    ):
        for index, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from _differences(one, other, f"{name}[{index}]")
    else:
        yield f"{name} {_shortened(before)}, now {_shortened(now)}"


def _shortened(value) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _assign(variables, arrays: dict, what: str) -> None:
    shapes = [tuple(variable.shape) for variable in variables]
    found = [array.shape for array in arrays.values()]
    if shapes != found:
        raise ValueError(
            f"The backup's weights do not fit {what}: it has {len(shapes)} "
            f"variables, the backup {len(found)}, or their shapes differ. "
            "Start from the same model and optimizer as the run did."
        )
    for variable, array in zip(variables, arrays.values(), strict=True):
        variable.assign(array)
