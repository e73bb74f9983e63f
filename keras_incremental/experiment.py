"""A scenario from the first task to the last: training, metrics, artefacts."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from keras_incremental import metrics, reports, trackers
from keras_incremental.callbacks import IncrementalCallback
from keras_incremental.distribution import is_chief
from keras_incremental.models import IncrementalClassifier
from keras_incremental.predictions import predict
from keras_incremental.scenarios import ClassIncrementalScenario, Task

_TEST_BATCH = 256
_OF_REPORT = (
    "old_accuracy_before",
    "old_accuracy",
    "new_accuracy",
    "accuracy_by_class",
    "images_by_class",
    "notes",
    "published",
    "not_published",
)
_TRACKED = (
    "average_incremental_accuracy",
    "final_accuracy",
    "forgetting",
    "backward_transfer",
)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Runs one method through one scenario and reports on it.

    Args:
        scenario: the tasks.
        model: a compiled classifier that knows no classes yet.
        incremental: memory, method and augmentation.
        epochs: Epochs of each task's first phase.
        batch_size: Images per training batch.
        dataset: name of the data set for the report.
        method: name of the method for the report.
        seed: for the report.
        flags: settings to keep with the results; JSON types.
        verbose: As in Keras' `fit`.

    >>> import keras_incremental as ki
    >>> scenario = ki.ClassIncrementalScenario.from_arrays(
    ...     *ki.scenarios.load_digits(), classes_per_task=5)
    >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
    >>> model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    >>> incremental = ki.IncrementalCallback(method=ki.FineTune())
    >>> run = Experiment(scenario, model, incremental, epochs=1, verbose=0)
    >>> len(run()["tasks"])
    2
    """

    scenario: ClassIncrementalScenario
    model: IncrementalClassifier
    incremental: IncrementalCallback
    epochs: int
    batch_size: int = 128
    dataset: str = ""
    method: str = ""
    seed: int = 0
    flags: Mapping = dataclasses.field(default_factory=dict)
    verbose: int | str = "auto"

    def __call__(
        self,
        output_dir=None,
        on_task_end: Callable[[dict], None] = lambda entry: None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> dict:
        """Runs all tasks.

        Args:
            output_dir: where `results.json` (after each task), the pictures,
                the model, the memory and TensorBoard logs go; `None` writes
                nothing. Of several workers the chief alone writes.
            on_task_end: called with each task's entry of the results.
            callbacks: further Keras callbacks for each `fit`; trackers are
                told of the results as well.

        Returns:
            the content of `results.json`.

        Raises:
            FileExistsError: if `output_dir` holds another run.
            ValueError: if the callback has a backup folder, and `output_dir`
                holds results of other settings.
        """
        before = []
        if not is_chief(self.model.distribute_strategy):
            output_dir = None
        if output_dir is not None:
            output_dir = reports.claim_output_dir(
                output_dir, resuming=self.incremental.is_backed_up
            )
            before = self._entries_before(output_dir)
            board = trackers.TensorBoard(
                output_dir / "tensorboard" / "tasks",
                {"dataset": self._identity()["dataset"]},
            )
            callbacks = [*callbacks, board]
        entries, results = [], {}
        for task in self.scenario:
            self._fit(task, output_dir, callbacks)
            if self._is_known(task, before):
                entries.append(before[task.index])
                continue
            entry, confusion = self._evaluate(task)
            entries.append(entry)
            results = self._results(entries, confusion)
            if output_dir is not None:
                reports.write_results(results, output_dir)
            if is_chief(self.model.distribute_strategy):
                _track(results, callbacks)
            on_task_end(entry)
        if output_dir is not None:
            self._write_artefacts(results, output_dir)
        return results

    def _entries_before(self, output_dir) -> list[dict]:
        """The tasks that a process before this one has finished."""
        if not (output_dir / reports.FILE_NAME).exists():
            return []
        results = reports.read_results(output_dir)
        now = self._identity()
        differing = [key for key in now if now[key] != results.get(key)]
        if differing:
            raise ValueError(
                f"{output_dir} holds the results of another run, with another "
                f"{', '.join(differing)}. Choose another folder."
            )
        return results["tasks"]

    def _is_known(self, task: Task, before: list[dict]) -> bool:
        """Whether a process before this one has evaluated a task.

        Its last entry is computed again while the model is as it was then,
        for the confusion matrix.
        """
        if task.index >= len(before):
            return False
        is_last = task.index == len(before) - 1
        seen = before[task.index]["seen_classes"]
        return not (is_last and self.model.num_classes == seen)

    def _identity(self) -> dict:
        """Returns what tells the results of this run from those of another."""
        return {
            "dataset": self.dataset or self.scenario.name,
            "method": self.method or type(self.incremental.method).__name__,
            "seed": self.seed,
            "class_order": self.scenario.class_order,
            "flags": json.loads(json.dumps(dict(self.flags))),
        }

    def _fit(self, task: Task, output_dir, callbacks) -> None:
        if output_dir is not None:
            logs = output_dir / "tensorboard" / f"task_{task.index:03}"
            callbacks = [*callbacks, keras.callbacks.TensorBoard(str(logs))]
        self.model.fit(
            task.train.batch(self.batch_size),
            batch_size=self.batch_size,  # also where a task has fewer images
            epochs=self.epochs,
            validation_data=task.seen_test.batch(_TEST_BATCH),
            validation_freq=[],  # the report measures it before and after
            verbose=self.verbose,
            callbacks=[self.incremental, *callbacks],
        )

    def _evaluate(self, task: Task) -> tuple[dict, np.ndarray]:
        """Returns a task's entry of the results, and the confusion matrix."""
        started = time.perf_counter()
        predictions = predict(
            self.model, task.seen_test, verbose=int(self.verbose != 0)
        )
        units, tasks = predictions.units, predictions.task_of_unit
        per_task = metrics.per_task_accuracy(predictions.classes, units, tasks)
        task_aware = metrics.per_task_accuracy(
            predictions.task_aware_classes, units, tasks
        )
        report = self.incremental.reports[-1]
        entry = {
            "task": task.index,
            "classes": task.class_names,
            "seen_classes": self.model.num_classes,
            "accuracy": predictions.accuracy,
            "top5_accuracy": metrics.top_k_accuracy(
                predictions.scores, units, 5
            ),
            "per_task_accuracy": list(per_task),
            "uncalibrated_accuracy": predictions.uncalibrated_accuracy,
            "task_aware_accuracy": list(task_aware),
            **report.details,
            **{name: getattr(report, name) for name in _OF_REPORT},
            "exemplars": report.exemplars,
            "epochs": report.epochs,
            "train_seconds": report.train_seconds,
            "overhead_seconds": report.overhead_seconds,
            "evaluate_seconds": time.perf_counter() - started,
        }
        confusion = metrics.confusion_matrix(
            units, predictions.classes, self.model.num_classes
        )
        return entry, confusion

    def _results(self, entries, confusion) -> dict:
        matrix = metrics.AccuracyMatrix()
        for entry in entries:
            matrix.record(entry["per_task_accuracy"])
        accuracies = [entry["accuracy"] for entry in entries]
        names = self.scenario.class_names
        results = {
            **self._identity(),
            "class_names": [names[k] for k in self.scenario.class_order],
            "tasks": entries,
            "accuracy_matrix": matrix.to_list(),
            "average_incremental_accuracy": (
                metrics.average_incremental_accuracy(accuracies)
            ),
            "average_incremental_accuracy_after_first": (
                metrics.average_incremental_accuracy_after_first(accuracies)
            ),
            "final_accuracy": accuracies[-1],
            "forgetting": metrics.forgetting(matrix.values),
            "backward_transfer": metrics.backward_transfer(matrix.values),
            "train_function_traces": max(
                self.model.train_function_traces,
                self.incremental.train_function_traces,
            ),
            "test_function_traces": self.model.test_function_traces,
            "branch_at": self.model.branch_at,
            "parameters": self.model.network.count_params(),
            "exemplar_bytes": self._exemplar_bytes(),
            "kept_bytes": self.model.score_rule.kept_bytes,
            "confusion_matrix": confusion.tolist(),
            "confusion_classes": self.model.class_names,
        }
        return reports.with_checksum(results)

    def _exemplar_bytes(self) -> int | None:
        """Bytes of the memory as it is stored; `None` if all data is kept."""
        if self.incremental.method.keeps_all_data:
            return None
        memory = self.incremental.memory
        return 0 if memory is None else memory.nbytes

    def _write_artefacts(self, results: dict, output_dir: pathlib.Path):
        method = results["method"]
        title = f"{method}, {reports.describe([results])}"
        reports.plot_accuracy({method: results}, output_dir / "accuracy.png")
        reports.plot_confusion(
            np.array(results["confusion_matrix"]),
            results["confusion_classes"],
            output_dir / "confusion.png",
            [entry["seen_classes"] for entry in results["tasks"]],
            title,
        )
        reports.plot_before_after(
            self.incremental.reports[-1],
            output_dir / "before_after.png",
            f"last task: {title}",
        )
        self.model.save(output_dir / "model.keras")
        if self.incremental.memory is not None:
            self.incremental.memory.save(output_dir / "memory")


def _track(results: dict, callbacks: Sequence) -> None:
    """Logs the results so far, at the newest task."""
    entry = results["tasks"][-1]
    values = {f"results/{name}": results[name] for name in _TRACKED}
    values["results/top5_accuracy"] = entry["top5_accuracy"]
    for callback in callbacks:
        if isinstance(callback, trackers.Tracker):
            callback.log(entry["task"], values)
