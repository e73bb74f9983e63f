"""What a run keeps on disk, to go on after the process was killed."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import keras
import numpy as np

from keras_incremental.backups import BackupFolder
from keras_incremental.exemplars import (
    ClassExemplars,
    ExemplarMemory,
    storage_record,
)
from keras_incremental.models import IncrementalClassifier
from keras_incremental.samples import Samples
from keras_incremental.training import Progress, Recorder, TaskReport


class Backup(Recorder):
    """Backs a run up after each epoch and each task, and restores it.

    What is written: the weights after the last finished task, at the start of
    the phase and after the last epoch, the optimizer's state, the memory, and
    how far the run has come. Everything else follows from these: growth,
    teacher, balanced set and shuffles are computed again as they were.

    Args:
        directory: the folder.
        settings: JSON types; a backup with other settings is of another run.
        writes: whether this process writes; one of several workers does, and
            all read.

    Raises:
        ValueError: if the folder holds a backup of another run, or none that
            is whole.
    """

    def __init__(self, directory, settings: dict, writes: bool = True):
        self._folder, self._writes = BackupFolder(directory), writes
        self._blobs: dict[str, str] = {}
        self._data: dict = {}
        self._record = {"settings": settings, "tasks": [], "progress": None}
        found = self._folder.read()
        self.is_resumed = found is not None
        if found is not None:
            record, self._blobs = found
            self._check_settings(record["settings"], settings)
            self._record = record

    @property
    def finished_tasks(self) -> int:
        """How many steps the backup has finished."""
        return len(self._record["tasks"])

    @property
    def traces(self) -> int:
        """The most traces of the train function in any process so far."""
        return self._record.get("traces", 0)

    def report(self, index: int) -> dict:
        """Returns the fields of a finished task's report."""
        return self._record["tasks"][index]["report"]

    def is_published(self, index: int) -> bool:
        """Whether the model was published after a finished task."""
        return self._record["tasks"][index]["published"]

    def begin_task(self, index: int, data: dict) -> Progress:
        """Returns how far a task had come; nothing if it is new.

        Args:
            index: Position of the task in this run.
            data: what tells its data and options from others'.

        Raises:
            ValueError: if the task had other data; with what differs.
        """
        self._check_data(index, data)
        self._data = data
        progress = self._record["progress"]
        if progress is None or index != self.finished_tasks:
            return Progress()
        names = [field.name for field in dataclasses.fields(Progress)]
        return Progress(**{name: progress[name] for name in names})

    def _check_data(self, index: int, data: dict) -> None:
        tasks, progress = self._record["tasks"], self._record["progress"]
        if index < len(tasks):
            before = tasks[index]["data"]
        elif index == len(tasks) and progress is not None:
            before = progress["data"]
        else:
            return
        differing = [key for key in data if data[key] != before.get(key)]
        if differing:
            raise ValueError(
                f"backup_dir={str(self._folder.path)!r} holds a run whose task "
                f"{index} had other data or options: "
                + "; ".join(
                    f"{key} {before.get(key)!r}, now {data[key]!r}"
                    for key in differing
                )
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
        model.restore_structure(structure)
        self._assign(model, "finished")
        model.finalize_state()
        if memory is not None:
            labels = self._record["memory_labels"]
            stored = [
                self._stored_images(memory, index)
                for index in range(len(labels))
            ]
            memory.restore(dict(zip(labels, stored, strict=True)))

    def check_model(self, model: IncrementalClassifier) -> None:
        """Refuses a model that is not the one of the last finished task.

        Raises:
            ValueError: if it does not know the classes of that step.
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

    def _stored_images(self, memory, index: int) -> ClassExemplars:
        """Returns the exemplars of the memory's class number `index`."""
        arrays = self._folder.get(self._blobs[f"memory {index}"])
        return ClassExemplars.from_arrays(memory.storage, arrays)

    def finish_task(
        self,
        model: IncrementalClassifier,
        memory: ExemplarMemory | None,
        report: TaskReport,
    ) -> None:
        """Backs up a finished task; if it raises, the task is not finished."""
        before = self._record, self._blobs
        try:
            self._note_task(model, memory, dataclasses.asdict(report))
            self._commit()
        except BaseException:
            self._record, self._blobs = before
            raise

    def _note_task(self, model, memory, report: dict) -> None:
        task = {"data": self._data, "report": report, "published": False}
        self._record = {
            **self._record,
            "structure": model.structure(),
            "progress": None,
            "tasks": [*self._record["tasks"], task],
        }
        self._note_traces(model)
        self._blobs = {"finished": self._put_all(model.state_variables())}
        if memory is not None:
            stored = memory.stored()
            self._record["memory_labels"] = list(stored)
            for index, images in enumerate(stored.values()):
                self._blobs[f"memory {index}"] = self._put(images.to_arrays())

    def note_published(self) -> None:
        """Notes that the model was published after the last task."""
        self._record["tasks"][-1]["published"] = True
        self._commit()

    # Within a task.

    def restore_phase_start(self, model: IncrementalClassifier) -> None:
        """Brings the weights to the start of the phase, after growth."""
        self._assign(model, "phase")

    def restore_epoch(self, model: IncrementalClassifier) -> None:
        """Brings weights and optimizer to the end of the last epoch."""
        self._assign(model, "model")
        arrays = self._folder.get(self._blobs["optimizer"])
        _assign(model.optimizer.variables, arrays, "the optimizer")

    def begin_phase(self, model: IncrementalClassifier) -> None:
        """Keeps the weights at the start of a phase."""
        self._blobs["phase"] = self._put_all(model.state_variables())

    def end_epoch(
        self, model: IncrementalClassifier, progress: Progress
    ) -> None:
        """Backs up a finished epoch."""
        self._blobs["model"] = self._put_all(model.state_variables())
        self._blobs["optimizer"] = self._put_all(model.optimizer.variables)
        self._record["progress"] = {
            **dataclasses.asdict(progress),
            "data": self._data,
        }
        self._note_traces(model)
        self._commit()

    def fail_task(self) -> None:
        """The task failed in this process: the next fit starts it anew."""
        self._record["progress"] = None

    def _note_traces(self, model) -> None:
        self._record["traces"] = max(self.traces, model.train_function_traces)

    def _commit(self) -> None:
        if self._writes:
            self._folder.commit(self._record, self._blobs)

    def _put_all(self, values: Sequence) -> str | None:
        return self._put(
            {
                str(index): keras.ops.convert_to_numpy(value)
                for index, value in enumerate(values)
            }
            if self._writes
            else {}
        )

    def _put(self, arrays) -> str | None:
        return self._folder.put(arrays) if self._writes else None

    def _assign(self, model: IncrementalClassifier, blob: str) -> None:
        arrays = self._folder.get(self._blobs[blob])
        _assign(model.state_variables(), arrays, "the model")

    def _check_settings(self, before: dict, now: dict) -> None:
        differing = [key for key in now if now[key] != before.get(key)]
        if differing:
            raise ValueError(
                f"backup_dir={str(self._folder.path)!r} holds the backup of "
                "another run: "
                + "; ".join(
                    f"{key} was {before.get(key)!r} and is {now[key]!r}"
                    for key in differing
                )
                + ". Choose another folder, or remove this one."
            )


def _assign(variables, arrays: dict, what: str) -> None:
    shapes = [tuple(variable.shape) for variable in variables]
    found = [arrays[str(index)].shape for index in range(len(arrays))]
    if shapes != found:
        raise ValueError(
            f"The backup's weights do not fit {what}: it has {len(shapes)} "
            f"variables, the backup {len(found)}, or their shapes differ. "
            "Start from the same model and optimizer as the run did."
        )
    for index, variable in enumerate(variables):
        variable.assign(arrays[str(index)])


def data_of(samples: Samples, epochs: int, batch_size: int) -> dict:
    """Returns what tells one task's data and options from another's."""
    labels = json.dumps(samples.labels.tolist())
    return {
        "samples": len(samples),
        "labels": hashlib.sha256(labels.encode()).hexdigest()[:16],
        "epochs": int(epochs),
        "batch_size": int(batch_size),
    }


def settings_of(model, memory, method, augment, seed: int) -> dict:
    """Returns what tells one run from another, as JSON types."""
    budget = None
    if memory is not None:
        budget = {
            "capacity": memory.capacity,
            "per_class": memory.per_class,
            "selection": _described(memory.selection),
            "seed": memory.seed,
            "storage": storage_record(memory.storage),
        }
    shapes = [tuple(weight.shape) for weight in model.backbone.weights]
    return json.loads(
        json.dumps(
            {
                "method": _described(method),
                "memory": budget,
                "augment": _described(augment),
                "seed": seed,
                "backbone": [model.backbone.name, len(shapes)],
                "backbone_shapes": hashlib.sha256(
                    repr(shapes).encode()
                ).hexdigest()[:16],
                "branch_at": model.branch_at,
            }
        )
    )


def _described(item):
    """A method, a schedule, a function or a plain value in JSON types."""
    if dataclasses.is_dataclass(item):
        fields = dataclasses.fields(item)
        return {
            "type": type(item).__name__,
            **{f.name: _described(getattr(item, f.name)) for f in fields},
        }
    if item is None or isinstance(item, (bool, int, float, str)):
        return item
    if isinstance(item, (list, tuple, np.ndarray)):
        return [_described(part) for part in item]
    return getattr(item, "__qualname__", type(item).__qualname__)
