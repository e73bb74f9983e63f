"""Teaches a classifier the classes of your photos, and more of them next week.

    python examples/teach.py --model=my.keras --images=photos/
    python examples/teach.py --model=my.keras --images=more_photos/
    python examples/teach.py --model=my.keras --try=photo.jpg

`photos/` has one folder of photos for each class; its name is the class's. A
folder named like a class that is known is more of it. A model that does not
exist yet is a network trained on ImageNet with a closed-form classifier: one
pass over the photos, no epochs, and old photos are not needed again. A fifth
of each class's photos is held out to measure by, and kept as small images in
`my_held_out/`, so that old classes are measured as well; the worst mistakes are
drawn in `my_mistakes.png`, what each class has lost or gained in
`my_before_after.png`. Without --images and --try it teaches itself
handwritten digits, five and then five more.
"""

import os
import pathlib
import shutil
import sys

import quick_help  # noqa: F401 (before TensorFlow is imported)

# A script may choose this, a library must not. It has to be set before
# TensorFlow is imported; it speeds up CPUs on which it is off by default.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

import keras_incremental as ki
from keras_incremental.methods import BY_NAME
from keras_incremental.model_files import load_model
from keras_incremental.scenarios import image_files

HELD_OUT = 0.2
# A closed form takes the features of inner layers as well, from its branch
# point on.
_POOLED_LAYERS = ("stage5", *(f"stage6_block{i}_out" for i in (1, 2, 3, 4)))
_ALL_AT_ONCE = sys.maxsize
# What a user can mend; an image that cannot be decoded is the last kind.
_MISTAKES = (
    ValueError,
    OSError,
    ImportError,
    tf.errors.InvalidArgumentError,
)

_MODEL = flags.DEFINE_string(
    "model", None, "The model to teach, my.keras; made if there is none."
)
_IMAGES = flags.DEFINE_string(
    "images", None, "A folder with one folder of photos for each class."
)
_TRY = flags.DEFINE_multi_string(
    "try", [], "A photo to name; may be given several times."
)
_METHOD = flags.DEFINE_enum(
    "method", "analytic", sorted(BY_NAME), "How new classes are learned."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", 224, "Of a new model, in pixels.", lower_bound=32
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", 10, "Of methods that have epochs.", lower_bound=1
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", 0.01, "Of methods that have epochs."
)
_EXEMPLARS = flags.DEFINE_integer(
    "exemplars",
    20,
    "Photos of each class that methods with a memory keep, in my_memory/.",
    lower_bound=1,
)
_FORGET = flags.DEFINE_list(
    "forget", [], "Classes to take out of a model taught by analytic."
)
_PUBLISH_TO = flags.DEFINE_string(
    "publish_to", None, "Publish a version for TensorFlow Serving here."
)
_MAX_OLD_ACCURACY_DROP = flags.DEFINE_float(
    "max_old_accuracy_drop",
    None,
    "Publish only if old classes have lost no more, 0 to 1.",
)

flags.register_validator(
    "model",
    lambda path: path is None or path.endswith(".keras"),
    message="Expected a path that ends in .keras.",
)


class Place:
    """Where a model and what belongs to it are.

    Args:
        model: path of the model.
    """

    def __init__(self, model):
        self.model = pathlib.Path(model)

    def beside(self, ending: str) -> pathlib.Path:
        """Returns the path of something that belongs to the model."""
        return self.model.with_name(self.model.stem + ending)


def new_model() -> ki.IncrementalClassifier:
    """Returns a network trained on ImageNet that knows no classes."""
    size = _IMAGE_SIZE.value
    backbone = ki.backbones.efficientnet_lite0((size, size, 3), "imagenet")
    if BY_NAME[_METHOD.value].needs_optimizer:
        return ki.IncrementalClassifier(backbone, branch_at=0.8)
    backbone = ki.backbones.with_pooled_layers(backbone, _POOLED_LAYERS)
    return ki.IncrementalClassifier(backbone, branch_at=_POOLED_LAYERS[0])


def read_model(place: Place) -> ki.IncrementalClassifier:
    """Returns the model to teach."""
    if not place.model.exists():
        return new_model()
    model = load_model(place.model)
    if not isinstance(model, ki.IncrementalClassifier):
        raise ValueError(
            f"{str(place.model)!r} is a {type(model).__name__}. add_classes.py "
            "teaches a Keras classifier more classes."
        )
    return model


def read_photos(path, model, held_out: float):
    """Returns datasets of the photos to learn and of those held out."""
    task = ki.ClassIncrementalScenario.from_directory(
        path,
        model.input_shape[1:3],
        classes_per_task=_ALL_AT_ONCE,
        test_fraction=held_out,
        channels=model.input_shape[-1],
    )[0]
    names = np.array(task.class_names)[np.argsort(task.labels)]
    return tuple(
        part.map(lambda image, label: (image, tf.gather(names, label)))
        for part in (task.train, task.test)
    )


def arrays_of(dataset):
    """Returns the images and the names of a dataset."""
    images, names = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.stack(images), np.array([name.decode() for name in names])


def keep_held_out(images, names, folder: pathlib.Path) -> None:
    """Writes images as PNG files, a folder for each class."""
    for name in np.unique(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        first = len(list((folder / name).iterdir()))
        for number, image in enumerate(images[names == name], start=first):
            path = folder / name / f"{number:06}.png"
            path.write_bytes(tf.io.encode_png(image).numpy())


def read_held_out(model, folder: pathlib.Path):
    """Returns what `keep_held_out` wrote of the classes that are known."""
    shape = model.input_shape[1:]
    read = image_files.image_reader(shape[:2], shape[-1])
    paths = [
        path
        for name in model.class_names
        for path in sorted((folder / name).glob("*.png"))
    ]
    images = np.array([read(str(path)) for path in paths], np.uint8)
    names = np.array([path.parent.name for path in paths], str)
    return images.reshape(-1, *shape), names


def teach(model, train, held_out, place: Place):
    """Teaches the model classes; returns the report.

    Args:
        model: an `IncrementalClassifier`.
        train: dataset of images and names to learn.
        held_out: images and names to measure by, of these classes.
        place: where the model belongs.
    """
    method, gate = BY_NAME[_METHOD.value], None
    if _MAX_OLD_ACCURACY_DROP.value is not None and model.labels:
        gate = ki.export.Gate(_MAX_OLD_ACCURACY_DROP.value)
    old = read_held_out(model, place.beside("_held_out"))
    everything = [
        np.concatenate(parts) for parts in zip(old, held_out, strict=True)
    ]
    incremental = ki.IncrementalCallback(
        read_memory(place) if method.needs_memory else None,
        method,
        publish_to=_PUBLISH_TO.value,
        publish_if=gate,
    )
    if method.needs_optimizer:
        model.compile(keras.optimizers.SGD(_LEARNING_RATE.value, momentum=0.9))
    model.fit(
        train.batch(32),
        epochs=_EPOCHS.value,
        validation_data=tuple(everything),
        callbacks=[incremental],
    )
    model.save(place.model)
    if method.needs_memory:
        incremental.memory.save(place.beside("_memory"))
    keep_held_out(*held_out, place.beside("_held_out"))
    ki.reports.plot_mistakes(
        *everything,
        model.predict(everything[0], verbose=0),
        model.class_names,
        place.beside("_mistakes.png"),
    )
    report = incremental.reports[-1]
    ki.reports.plot_before_after(report, place.beside("_before_after.png"))
    return report


def read_memory(place: Place) -> ki.ExemplarMemory:
    """Returns the exemplars that belong to the model, or a new memory."""
    folder = place.beside("_memory")
    if folder.exists():
        return ki.ExemplarMemory.load(folder)
    return ki.ExemplarMemory(per_class=_EXEMPLARS.value)


def name_photos(model, paths) -> None:
    """Prints the most probable classes of photos."""
    best = min(5, model.num_classes)
    for path, result in zip(
        paths, model.classify(paths, top_k=best, verbose=0), strict=True
    ):
        print(f"{path}: {result}")


def teach_digits(model, place: Place) -> None:
    """Teaches five digits and then five more, enlarged to the model's size."""
    scenario = ki.ClassIncrementalScenario.from_arrays(
        *ki.scenarios.load_digits(), classes_per_task=5, class_order=range(10)
    )
    height, width, channels = model.input_shape[1:]

    def enlarged(image, label):
        image = tf.image.resize(image, (height, width))
        image = tf.repeat(image, channels, axis=-1)
        return tf.cast(image, tf.uint8), tf.strings.as_string(label)

    for task in scenario:
        held_out = arrays_of(task.test.map(enlarged))
        print(teach(model, task.train.map(enlarged), held_out, place))


def run() -> None:
    """Does what the flags ask for."""
    if _MODEL.value is None and (_IMAGES.value or _TRY.value or _FORGET.value):
        raise ValueError("Which model? Pass --model=my.keras.")
    place = Place(_MODEL.value or "digits.keras")
    if not (_IMAGES.value or _TRY.value or _FORGET.value):
        teach_digits(new_model(), place)
        print(f"Wrote {place.model} and {place.beside('_mistakes.png')}")
        return
    if not (_IMAGES.value or place.model.exists()):
        raise FileNotFoundError(
            f"There is no model {str(place.model)!r}. Pass --images=photos/, a "
            "folder with one folder of photos for each class, to make it."
        )
    model = read_model(place)
    if _FORGET.value:
        model.forget_classes(_FORGET.value)
        model.save(place.model)
        for name in _FORGET.value:
            shutil.rmtree(place.beside("_held_out") / name)
    if _IMAGES.value:
        train, held_out = read_photos(_IMAGES.value, model, HELD_OUT)
        print(teach(model, train, arrays_of(held_out), place))
        print(f"Wrote {place.model} and {place.beside('_mistakes.png')}")
    if _TRY.value:
        name_photos(model, _TRY.value)


def main(argv) -> None:
    """Teaches, forgets and tries; absl calls it."""
    if len(argv) > 1:
        sys.exit(f"teach.py: unknown arguments: {' '.join(argv[1:])}")
    keras.utils.set_random_seed(0)
    try:
        run()
    except _MISTAKES as error:
        logging.debug("Where it went wrong:", exc_info=True)  # --verbosity=1
        sys.exit(f"teach.py: {' '.join(str(error).split())}")


if __name__ == "__main__":
    app.run(main)
