"""Adopts a trained CIFAR-10 classifier and teaches it four more classes.

    python examples/adopt_cifar10.py --data_dir=PREPARED_TFDS \
        --output_dir=out/adopted

One process trains a plain Keras classifier of six classes from random weights
and leaves nothing but `trained.keras`. A second process loads that, adopts it,
takes exemplars from the old data and learns two classes, and two more. So for a
MobileNetV2 and for a small Sequential CNN.

A folder for each network gets trained.keras, model.keras, memory/,
report.json and confusion.png; the output folder gets accuracy.png.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

import quick_help  # noqa: F401 (before TensorFlow is imported)

# A script may choose this, a library must not. It has to be set before
# TensorFlow is imported; it speeds up CPUs on which it is off by default.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import plain_classifiers
import tensorflow as tf
from absl import app, flags, logging

import keras_incremental as ki
from keras_incremental.files import atomic_write
from keras_incremental.predictions import predict

CLASSES_PER_TASK = [6, 2, 2]
# Where a run reads and writes is no part of what it computes.
_NOT_SETTINGS = {"networks", "output_dir", "data_dir", "export_dir", "stage"}
# What a user can mend.
_MISTAKES = (ValueError, OSError, ImportError)

_NETWORKS = flags.DEFINE_list(
    "networks", "mobilenet_v2,cnn", "One or both, with a comma between."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared TFDS data."
)
_SAMPLES_PER_CLASS = flags.DEFINE_integer(
    "samples_per_class", 500, "Use so many training images.", lower_bound=1
)
_HOLD_OUT = flags.DEFINE_bool(
    "hold_out",
    False,
    "Measure on the last tenth of the training images, not on the test images: "
    "to choose settings by.",
)
_BASE_EPOCHS = flags.DEFINE_integer(
    "base_epochs", 20, "Of the plain classifier.", lower_bound=1
)
_BASE_LEARNING_RATE = flags.DEFINE_float(
    "base_learning_rate", 0.002, "First one of the plain classifier."
)
_MEMORY_SIZE = flags.DEFINE_integer(
    "memory_size", 200, "Exemplars in all.", lower_bound=1
)
_EPOCHS = flags.DEFINE_integer("epochs", 10, "Of each step.", lower_bound=1)
_FINETUNE_EPOCHS = flags.DEFINE_integer(
    "finetune_epochs", 20, "Of balanced fine-tuning.", lower_bound=0
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", 0.003, "First one of each step."
)
_FINETUNE_LEARNING_RATE = flags.DEFINE_float(
    "finetune_learning_rate", 0.003, "First one of balanced fine-tuning."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "", lower_bound=0)
_DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "Same seed, same results; slower on a GPU."
)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir",
    None,
    "Publish each network in a folder here for TensorFlow Serving.",
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "A folder without another run in it.", required=True
)
_STAGE = flags.DEFINE_enum(
    "stage",
    None,
    ["train", "grow"],
    "What one process does for one network; by default all, each in a process "
    "of its own.",
)

for _name in ("base_learning_rate", "learning_rate", "finetune_learning_rate"):
    flags.register_validator(
        _name,
        lambda value: value > 0,
        message="Expected a number above 0.",
    )


flags.register_validator(
    "networks",
    lambda names: names and set(names) <= set(plain_classifiers.NETWORKS),
    message=f"Expected one or more of {', '.join(plain_classifiers.NETWORKS)}.",
)


def train(scenario, folder: pathlib.Path) -> None:
    """Trains a plain classifier of the first task's classes and saves it."""
    task = scenario[0]
    make = plain_classifiers.NETWORKS[folder.name]
    model = make(scenario.image_shape, len(task.labels))
    plain_classifiers.fit(
        model,
        task.train,
        epochs=_BASE_EPOCHS.value,
        learning_rate=_BASE_LEARNING_RATE.value,
        batch_size=_BATCH_SIZE.value,
        seed=_SEED.value,
    )
    model.save(folder / "trained.keras")


# The second process: all that it knows of the first is in trained.keras.


def adopt(scenario, folder: pathlib.Path, memory) -> ki.IncrementalClassifier:
    """Returns the trained classifier as one that grows; fills the memory."""
    task = scenario[0]
    model = ki.IncrementalClassifier.from_classifier(
        keras.models.load_model(folder / "trained.keras"),
        class_names=task.class_names,
        labels=task.labels,
    )
    model.compile(
        optimizer=keras.optimizers.SGD(_LEARNING_RATE.value, momentum=0.9)
    )
    memory.add_from(model, task.train.batch(_BATCH_SIZE.value))
    return model


def make_callback(scenario, memory) -> ki.IncrementalCallback:
    """Returns the callback that the flags ask for."""
    fraction = _FINETUNE_LEARNING_RATE.value / _LEARNING_RATE.value
    return ki.IncrementalCallback(
        memory,
        ki.EEIL(
            finetune_epochs=_FINETUNE_EPOCHS.value,
            finetune_learning_rate=fraction,
        ),
        class_names=scenario.class_names,
        augment=ki.augmentation.CropFlip(),
        seed=_SEED.value,
    )


def entry_of(model, memory, task, predictions) -> dict:
    """Returns the figures of a task after it was learned."""
    return {
        "task": task.index,
        "classes": task.class_names,
        "seen_classes": model.num_classes,
        "accuracy": predictions.accuracy,
        "per_task_accuracy": ki.metrics.per_task_accuracy(
            predictions.classes,
            predictions.units,
            predictions.task_of_unit,
        ).tolist(),
        "exemplars": len(memory),
    }


def learn(model, incremental, task) -> dict:
    """Teaches the model a task's classes; returns the figures."""
    model.fit(
        task.train.batch(_BATCH_SIZE.value),
        epochs=_EPOCHS.value,
        validation_data=task.seen_test.batch(256),
        validation_freq=[],  # the report measures it before and after
        callbacks=[incremental],
        verbose=2,
    )
    report = incremental.reports[-1]
    print(report)
    predictions = predict(model, task.seen_test)
    return {
        **entry_of(model, incremental.memory, task, predictions),
        **report.to_json(),
    }


def grow(scenario, folder: pathlib.Path) -> None:
    """Adopts the trained classifier and teaches it all other tasks."""
    started = time.perf_counter()
    memory = make_memory(scenario)
    model = adopt(scenario, folder, memory)
    incremental = make_callback(scenario, memory)
    first, *tasks = scenario
    predictions = predict(model, first.seen_test)
    entries = [entry_of(model, memory, first, predictions)]
    entries += [learn(model, incremental, task) for task in tasks]
    model.save(folder / "model.keras")
    memory.save(folder / "memory")
    plot_confusion(model, tasks[-1], folder)
    report = report_of(scenario, folder.name, entries)
    report["seconds"] = time.perf_counter() - started
    write_report(report, folder)
    if _EXPORT_DIR.value is not None:
        report["published"] = publish(model, folder.name)
        write_report(report, folder)


def plot_confusion(model, last_task, folder: pathlib.Path) -> None:
    """Draws which classes are taken for which, after all steps."""
    predictions = predict(model, last_task.seen_test)
    ki.reports.plot_confusion(
        ki.metrics.confusion_matrix(
            predictions.units, predictions.classes, model.num_classes
        ),
        model.class_names,
        folder / "confusion.png",
        np.cumsum(CLASSES_PER_TASK).tolist(),
    )


def report_of(scenario, network: str, entries: list[dict]) -> dict:
    """Returns what is stored of a run."""
    matrix = ki.metrics.AccuracyMatrix()
    for entry in entries:
        matrix.record(entry["per_task_accuracy"])
    accuracies = [entry["accuracy"] for entry in entries]
    return {
        "dataset": scenario.name,
        "network": network,
        "seed": _SEED.value,
        "flags": settings(),
        "tasks": entries,
        "accuracy_matrix": matrix.to_list(),
        "average_incremental_accuracy": (
            ki.metrics.average_incremental_accuracy(accuracies)
        ),
        "final_accuracy": accuracies[-1],
        "published": None,
    }


def settings() -> dict:
    """The flags of this script, but for where it reads and writes."""
    module = flags.FLAGS.find_module_defining_flag("output_dir")
    own = flags.FLAGS.flags_by_module_dict()[module]
    return {
        flag.name: flag.value for flag in own if flag.name not in _NOT_SETTINGS
    }


def publish(model, network: str) -> str:
    """Publishes a version for TensorFlow Serving; returns its folder."""
    base = os.path.join(_EXPORT_DIR.value, network)
    return str(ki.export.publish(model, base))


def write_report(report: dict, folder: pathlib.Path) -> None:
    """Writes `report.json`, whole or not at all."""
    with atomic_write(folder / "report.json", "w") as file:
        json.dump(report, file, indent=1, ensure_ascii=False)


# All of it, each stage in a process of its own.


STAGES = {"train": train, "grow": grow}


def make_scenario() -> ki.ClassIncrementalScenario:
    """Returns CIFAR-10 in label order, as six, two and two classes."""
    # TFDS reports each file that it opens.
    logging.set_verbosity(logging.WARNING)
    train_split, test_split = "train", "test"
    if _HOLD_OUT.value:
        train_split, test_split = "train[:90%]", "train[90%:]"
    return ki.ClassIncrementalScenario.from_tfds(
        "cifar10",
        _DATA_DIR.value,
        classes_per_task=CLASSES_PER_TASK,
        class_order=list(range(sum(CLASSES_PER_TASK))),
        train_split=train_split,
        test_split=test_split,
        samples_per_class=_SAMPLES_PER_CLASS.value,
        seed=_SEED.value,
    )


def make_memory(scenario) -> ki.ExemplarMemory:
    """Returns an empty memory with room for all classes to come."""
    memory = ki.ExemplarMemory(_MEMORY_SIZE.value, seed=_SEED.value)
    memory.quotas(scenario.num_classes)  # refuses too small a memory
    return memory


def run_stage() -> None:
    """Does what one process does for one network."""
    keras.utils.set_random_seed(_SEED.value)
    if _DETERMINISTIC.value:
        tf.config.experimental.enable_op_determinism()
    (network,) = _NETWORKS.value
    scenario = make_scenario()
    make_memory(scenario)  # a mistake is told before any training
    STAGES[_STAGE.value](scenario, pathlib.Path(_OUTPUT_DIR.value) / network)


def run_all(arguments: list[str]) -> None:
    """Runs the stages one after another and shows what came of them."""
    output_dir = ki.reports.claim_output_dir(_OUTPUT_DIR.value)
    folders = [
        ki.reports.claim_output_dir(output_dir / name)
        for name in _NETWORKS.value
    ]
    for folder in folders:
        for stage in STAGES:
            process = [sys.executable, __file__, *arguments]
            own = [f"--stage={stage}", f"--networks={folder.name}"]
            code = subprocess.run([*process, *own]).returncode
            if code:
                sys.exit(code)  # it has said why
    reports = {folder.name: read_report(folder) for folder in folders}
    ki.reports.plot_accuracy(reports, output_dir / "accuracy.png")
    for name, report in reports.items():
        print_summary(name, report)
    print(f"Curve: {output_dir / 'accuracy.png'}")


def read_report(folder: pathlib.Path) -> dict:
    """Returns the content of a network's `report.json`."""
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def print_summary(name: str, report: dict) -> None:
    """Prints what was learned and what was forgotten."""
    adopted, *steps = report["tasks"]
    print(
        f"{name}: {adopted['seen_classes']} classes adopted, accuracy "
        f"{percent(adopted['accuracy'])}"
    )
    for entry in steps:
        print(
            f"{name}: {', '.join(entry['classes'])} added | old classes "
            f"{percent(entry['old_accuracy_before'])} before, "
            f"{percent(entry['old_accuracy'])} after | new classes "
            f"{percent(entry['new_accuracy'])} | all "
            f"{percent(entry['accuracy'])}"
        )
    if report["published"] is not None:
        print(f"{name}: published {report['published']}")


def percent(share: float) -> str:
    """Returns a share as text."""
    return f"{100 * share:.1f}%"


def main(argv) -> None:
    """Runs all stages, or one; absl calls it."""
    if len(argv) > 1:
        sys.exit(f"adopt_cifar10.py: unknown arguments: {' '.join(argv[1:])}")
    try:
        if _STAGE.value is not None:
            run_stage()
        else:
            run_all(sys.argv[1:])
    except _MISTAKES as error:
        logging.debug("Where it went wrong:", exc_info=True)  # --verbosity=1
        sys.exit(f"adopt_cifar10.py: {' '.join(str(error).split())}")


if __name__ == "__main__":
    app.run(main)
