"""Teaches a trained classifier the classes of a folder of class folders.

    python examples/add_classes.py --model=trained.keras \
        --class_names=cat,dog,fox --images=new_classes --output_dir=monday

    python examples/add_classes.py --model=monday/model.keras \
        --memory=monday/memory --images=more_classes --output_dir=tuesday

The output folder gets the grown model (model.keras), the exemplars (memory/),
report.json, confusion.png and before_after.png, the accuracy of each class. A
fifth of each class' images is held out to measure it; --max_old_accuracy_drop
and --min_new_accuracy say what a model must be worth to be published.
"""

import dataclasses
import json
import os
import sys

import quick_help  # noqa: F401 (before TensorFlow is imported)

# A script may choose this, a library must not. It has to be set before
# TensorFlow is imported; it speeds up CPUs on which it is off by default.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from absl import app, flags, logging

import keras_incremental as ki
from keras_incremental.files import atomic_write
from keras_incremental.model_files import load_model
from keras_incremental.networks import BranchedNetwork
from keras_incremental.predictions import predict

AUGMENTATIONS = {
    "none": lambda: None,
    "crop_flip": ki.augmentation.CropFlip,
    "eeil": ki.augmentation.EEILAugmentation,
    "eeil_stored": ki.augmentation.StoredEEILAugmentation,
}
DEFAULT_MEMORY_SIZE = 500
HELD_OUT = 0.2
_ALL_AT_ONCE = sys.maxsize
# What a user can mend; an image that cannot be decoded is the last kind.
_MISTAKES = (
    ValueError,
    OSError,
    ImportError,
    tf.errors.InvalidArgumentError,
)

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "A saved Keras classifier, or an IncrementalClassifier.",
    required=True,
)
_CLASS_NAMES = flags.DEFINE_string(
    "class_names",
    None,
    "The names of a Keras classifier's classes in the order of its outputs: "
    "with commas between, or a text file with one name a line.",
)
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "A folder with one folder of images for each class to learn. A folder "
    "named like a known class is more data of that class.",
    required=True,
)
_OLD_IMAGES = flags.DEFINE_string(
    "old_images",
    None,
    "A folder of class folders of known classes: for the memory, and to "
    "measure what is forgotten.",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Height and width in pixels; by default what the model takes.",
    lower_bound=1,
)
_MEMORY = flags.DEFINE_string(
    "memory", None, "The memory/ folder of the run before."
)
_MEMORY_SIZE = flags.DEFINE_integer(
    "memory_size",
    None,
    "Exemplars that a new memory holds in all; by default "
    f"{DEFAULT_MEMORY_SIZE}.",
    lower_bound=1,
)
_EPOCHS = flags.DEFINE_integer("epochs", 20, "Of training.", lower_bound=1)
_FINETUNE_EPOCHS = flags.DEFINE_integer(
    "finetune_epochs", 10, "Of balanced fine-tuning.", lower_bound=0
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", 0.01, "Of the first epoch."
)
_AUGMENT = flags.DEFINE_enum("augment", "none", sorted(AUGMENTATIONS), "")
_SEED = flags.DEFINE_integer("seed", 0, "", lower_bound=0)
_EXPORT_DIR = flags.DEFINE_string(
    "export_dir", None, "Publish a version for TensorFlow Serving here."
)
_MAX_OLD_ACCURACY_DROP = flags.DEFINE_float(
    "max_old_accuracy_drop",
    None,
    "Publish only if the accuracy of old classes has fallen by no more, 0 to "
    "1; it needs --old_images.",
)
_MIN_NEW_ACCURACY = flags.DEFINE_float(
    "min_new_accuracy",
    None,
    "Publish only if the accuracy of new classes is this or more, 0 to 1.",
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "A folder without another run in it.", required=True
)

flags.register_validator(
    "learning_rate",
    lambda value: value > 0,
    message="Expected a number above 0.",
)


@flags.multi_flags_validator(
    ["memory", "memory_size"],
    message="--memory_size is for a new memory; that of --memory stays.",
)
def _one_memory(values):
    return None in (values["memory"], values["memory_size"])


def read_model() -> ki.IncrementalClassifier:
    """Returns the classifier that the flags name, compiled."""
    model = as_incremental(load_model(_MODEL.value, compile=False))
    model.compile(
        optimizer=keras.optimizers.SGD(_LEARNING_RATE.value, momentum=0.9)
    )
    return model


def as_incremental(model: keras.Model) -> ki.IncrementalClassifier:
    """Returns an incremental classifier as it is, another one adopted."""
    names = _CLASS_NAMES.value
    if isinstance(model, ki.IncrementalClassifier):
        if names is not None:
            raise ValueError(
                "--class_names is for a plain Keras classifier; this model "
                f"knows its own: {', '.join(model.class_names[:10])}. Leave "
                "it out."
            )
        return model
    if names is None:
        raise ValueError(
            f"{_MODEL.value!r} is a plain Keras classifier. Pass the names of "
            "its classes: --class_names=cat,dog or --class_names=names.txt."
        )
    return ki.IncrementalClassifier.from_classifier(model, read_names(names))


def read_names(text: str) -> list[str]:
    """Returns the names of a file, one a line, or of a list with commas."""
    if os.path.isfile(text):
        with open(text, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
        return [line for line in lines if line]
    if text.endswith(".txt"):
        raise FileNotFoundError(f"There is no file of class names {text!r}.")
    return [name.strip() for name in text.split(",")]


def image_shape(model) -> tuple[int, int, int]:
    """Returns height, width and channels of the images to read."""
    if len(model.input_shape) != 4:
        raise ValueError(
            f"The model takes inputs of shape {model.input_shape}; expected "
            "images, (batch, height, width, channels)."
        )
    height, width, channels = model.input_shape[1:]
    size = _IMAGE_SIZE.value
    if size is None and None in (height, width):
        raise ValueError("The model takes images of any size: --image_size?")
    for side in (height, width):
        if size is not None and side not in (None, size):
            raise ValueError(
                f"--image_size={size}, but the model takes images of "
                f"{height}x{width}. Leave it out."
            )
    return height or size, width or size, channels


def read_memory() -> ki.ExemplarMemory:
    """Returns the memory of the run before, or a new one."""
    if _MEMORY.value is not None:
        return ki.ExemplarMemory.load(_MEMORY.value)
    return ki.ExemplarMemory(
        _MEMORY_SIZE.value or DEFAULT_MEMORY_SIZE, seed=_SEED.value
    )


def read_folder(path: str, shape) -> ki.scenarios.Task:
    """Returns the images of a folder of class folders, a part held out."""
    height, width, channels = shape
    return ki.ClassIncrementalScenario.from_directory(
        path,
        (height, width),
        classes_per_task=_ALL_AT_ONCE,
        test_fraction=HELD_OUT,
        channels=channels,
        seed=_SEED.value,
    )[0]


def labels_by_name(model, names) -> dict:
    """Returns the labels of class names: those known, and the next free."""
    known = dict(zip(model.class_names, model.labels, strict=True))
    new = [name for name in names if name not in known]
    if isinstance(model.labels[0], str):
        labels = new
    else:
        first = max(model.labels) + 1
        labels = range(first, first + len(new))
    return known | dict(zip(new, labels, strict=True))


def labelled(task: ki.scenarios.Task, label_of: dict, part: str):
    """Returns a part of a folder with the model's labels, in batches."""
    of_folder = dict(zip(task.labels, task.class_names, strict=True))
    table = tf.constant([label_of[of_folder[k]] for k in sorted(of_folder)])
    return (
        getattr(task, part)
        .map(lambda image, folder: (image, tf.gather(table, folder)))
        .batch(_BATCH_SIZE.value)
    )


def check_old_folders(model, task: ki.scenarios.Task) -> None:
    """Refuses folders of classes that the model does not know."""
    strange = sorted(set(task.class_names) - set(model.class_names))
    if strange:
        raise ValueError(
            f"--old_images has folders of classes that the model does not "
            f"know: {', '.join(strange[:10])}. Put them into --images."
        )


def make_callback(model, memory, label_of) -> ki.IncrementalCallback:
    """Returns the callback that the flags ask for."""
    if isinstance(model.network, BranchedNetwork):
        method = ki.PartialSharing()
    else:
        method = ki.EEIL(finetune_epochs=_FINETUNE_EPOCHS.value)
    return ki.IncrementalCallback(
        memory,
        method,
        class_names={label: name for name, label in label_of.items()},
        augment=AUGMENTATIONS[_AUGMENT.value](),
        seed=_SEED.value,
    )


def add_classes(model, output_dir):
    """Teaches the model the new classes; returns the task's report."""
    shape = image_shape(model)
    memory = read_memory()
    known = model.num_classes
    new = read_folder(_IMAGES.value, shape)
    label_of = labels_by_name(model, sorted(new.class_names))
    held_out = labelled(new, label_of, "test")
    if _OLD_IMAGES.value is not None:
        old = read_folder(_OLD_IMAGES.value, shape)
        check_old_folders(model, old)
        memory.add_from(model, labelled(old, label_of, "train"))
        held_out = held_out.concatenate(labelled(old, label_of, "test"))
    incremental = make_callback(model, memory, label_of)
    model.fit(
        labelled(new, label_of, "train"),
        validation_data=held_out,
        epochs=_EPOCHS.value,
        callbacks=[incremental],
    )
    model.save(output_dir / "model.keras")
    memory.save(output_dir / "memory")
    plot_confusion(model, held_out, known, output_dir)
    report = incremental.reports[-1]
    ki.reports.plot_before_after(report, output_dir / "before_after.png")
    return report


def plot_confusion(model, images, known: int, output_dir) -> None:
    """Draws which classes are taken for which."""
    predictions = predict(model, images.unbatch())
    ki.reports.plot_confusion(
        ki.metrics.confusion_matrix(
            predictions.units, predictions.classes, model.num_classes
        ),
        model.class_names,
        output_dir / "confusion.png",
        [known],
    )


def make_gate() -> ki.export.Gate | None:
    """Returns what decides if a version is published, if anything does."""
    bounds = (_MAX_OLD_ACCURACY_DROP.value, _MIN_NEW_ACCURACY.value)
    return None if bounds == (None, None) else ki.export.Gate(*bounds)


def publish(model, report):
    """Publishes a version if the gate lets it out; returns the report."""
    gate = make_gate()
    if refusal := gate and gate.refusal(report):
        return dataclasses.replace(report, not_published=refusal)
    version = ki.export.publish(
        model, _EXPORT_DIR.value, report=report.to_json()
    )
    return dataclasses.replace(report, published=str(version))


def write_report(report, output_dir) -> None:
    """Writes `report.json`, whole or not at all."""
    with atomic_write(output_dir / "report.json", "w") as file:
        json.dump(report.to_json(), file, indent=1, ensure_ascii=False)


def main(argv) -> None:
    """Adds the classes; absl calls it."""
    if len(argv) > 1:
        sys.exit(f"add_classes.py: unknown arguments: {' '.join(argv[1:])}")
    keras.utils.set_random_seed(_SEED.value)
    try:
        make_gate()  # a mistake is told before any training
        output_dir = ki.reports.claim_output_dir(_OUTPUT_DIR.value)
        model = read_model()
        report = add_classes(model, output_dir)
        write_report(report, output_dir)
        if _EXPORT_DIR.value is not None:
            report = publish(model, report)
            write_report(report, output_dir)
    except _MISTAKES as error:
        logging.debug("Where it went wrong:", exc_info=True)  # --verbosity=1
        sys.exit(f"add_classes.py: {' '.join(str(error).split())}")
    print(report)
    print(f"Wrote {output_dir / 'model.keras'}")


if __name__ == "__main__":
    app.run(main)
