"""Typical use, for a type checker to read; it is never run.

What is wrong says so by `type: ignore`: an unused one is an error too.
"""

import pathlib

import keras
import numpy as np

import keras_incremental as ki

images, labels = np.zeros((20, 8, 8, 1)), np.arange(20) % 2
scenario = ki.ClassIncrementalScenario.from_arrays(
    images, labels, images, labels, classes_per_task=[1, 1], class_order=[1, 0]
)
ki.ClassIncrementalScenario.from_directory(
    pathlib.Path("photos"), image_size=(224, 224), classes_per_task=5
)
model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)), branch_at=0.5)
model = ki.IncrementalClassifier.from_classifier(
    keras.models.load_model("trained.keras"), class_names=["cat", "dog"]
)
model.compile("sgd")
memory = ki.ExemplarMemory(capacity=10, storage=ki.exemplars.JpegStorage(90))
memory.add_from(model, images, labels)
step = ki.IncrementalCallback(
    memory,
    ki.EEIL(finetune_epochs=3, classification=ki.objectives.BalancedSoftmax()),
    class_names={0: "cat", 1: "dog"},
    backup_dir="backup",
    publish_if=ki.export.Gate(max_old_accuracy_drop=0.02),
)
for task in scenario:
    index: int = task.index
    model.fit(task.train.batch(8), epochs=2, callbacks=[step])
model.save(pathlib.Path("model.keras"))
memory.save("memory")
memory = ki.ExemplarMemory.load(pathlib.Path("memory"))
path: pathlib.Path = ki.export.publish(model, "serving/model", keep=3)
forgotten: float = ki.metrics.forgetting([[0.9, np.nan], [0.6, 0.8]])
table: str = ki.reports.markdown({"EEIL": [ki.reports.read_results("out")]})
ki.sharing.search(model, list(scenario), points=["first", 0.5], epochs=1)
ki.cost.report(model).save("cost.json")


class Mine(ki.Method):
    """A method of a user."""

    def phases(self, task: ki.methods.TaskStep) -> list[ki.methods.Phase]:
        """Returns no phase."""
        return []


ki.IncrementalCallback(method=Mine())

ki.ExemplarMemory(capacity="10")  # type: ignore[arg-type]
ki.EEIL(finetune_epoch=3)  # type: ignore[call-arg]
ki.IncrementalCallback(memory, "eeil")  # type: ignore[arg-type]
ki.export.publish(model, base=3)  # type: ignore[arg-type]
table = ki.metrics.forgetting([[0.9]])  # type: ignore[assignment]
