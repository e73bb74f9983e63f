"""Writes a file of each format of today, for the versions that are to come.

    python tests/formats/write.py tests/formats/version_1

`test_formats.py` reads every such folder and compares what it finds with
`expected.npz`, which is plain NumPy. A folder is written once, when a format
changes, and never again: it stands for the files that users have.
"""

import contextlib
import pathlib
import sys

import keras
import numpy as np

import keras_incremental as ki
from keras_incremental import experiment

NAMES = {30: "cat", 10: "dög", 20: "fox", 40: "猫"}
TASKS = [[30, 10], [20, 40]]
IMAGE_SIZE = (4, 4, 1)


class CutError(Exception):
    """Stands in for a kill."""


class Cut(keras.callbacks.Callback):
    """Ends a fit after its first epoch, as a kill would.

    Attributes:
        logits: of the model at the end of the last epoch.
    """

    def __init__(self, model, images):
        super().__init__()
        self._classifier, self._images = model, images
        self.logits = None

    def on_epoch_begin(self, epoch, logs=None):
        if epoch > 0:
            raise CutError

    def on_epoch_end(self, epoch, logs=None):
        self.logits = logits_of(self._classifier, self._images)


def logits_of(model, images):
    """Returns logits without a compiled function, `(samples, classes)`."""
    return keras.ops.convert_to_numpy(model(images, training=False))


def data():
    """Returns easy images of four classes, and labels."""
    random = np.random.default_rng(0)
    labels = np.repeat(list(NAMES), 6)
    means = random.uniform(40, 215, (len(NAMES), *IMAGE_SIZE)).repeat(6, 0)
    noise = random.normal(0, 12, means.shape)
    return (means + noise).clip(0, 255).astype("uint8"), labels


def classifier(branch_at=None):
    """Returns a compiled classifier of a few hundred weights, no classes."""
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [
            keras.Input(IMAGE_SIZE),
            keras.layers.Rescaling(1 / 255, name="rescaling"),
            keras.layers.Conv2D(3, 3, padding="same", name="stem"),
            keras.layers.BatchNormalization(name="normalization"),
            keras.layers.ReLU(name="relu"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(4, name="dense"),
        ],
        name="backbone",
    )
    model = ki.IncrementalClassifier(backbone, 4, branch_at, name="classifier")
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    return model


def scenario():
    """Returns two tasks of two classes."""
    images, labels = data()
    return ki.ClassIncrementalScenario.from_arrays(
        images,
        labels,
        images,
        labels,
        classes_per_task=2,
        class_order=list(NAMES),
        class_names=NAMES,
    )


def incremental(memory, method, backup_dir=None):
    """Returns the callback of a run."""
    return ki.IncrementalCallback(
        memory, method, class_names=NAMES, backup_dir=backup_dir
    )


def fit(model, task, *callbacks):
    """Teaches the model the classes of a task, in two epochs."""
    images, labels = data()
    chosen = np.isin(labels, task)
    model.fit(
        images[chosen],
        labels[chosen],
        batch_size=6,
        epochs=2,
        verbose=0,
        callbacks=list(callbacks),
    )


def write(folder):
    """Writes all files into a new folder."""
    folder.mkdir()
    images, _ = data()
    expected = {"images": images}

    model, memory = classifier(), ki.ExemplarMemory(8)
    callback = incremental(memory, ki.EEIL(1), folder / "backup_step")
    run = experiment.Experiment(
        scenario(), model, callback, epochs=2, batch_size=6, verbose=0
    )
    ki.reports.write_results(run(), folder)
    model.save(folder / "model.keras")
    memory.save(folder / "memory")
    expected["model"] = logits_of(model, images)
    for label in memory.labels:
        expected[f"memory_{label}"] = memory.images(label)

    branched = classifier(branch_at="relu")
    callback = incremental(None, ki.PartialSharing())
    for task in TASKS:
        fit(branched, task, callback)
    branched.save(folder / "branched.keras")
    expected["branched"] = logits_of(branched, images)

    model, memory = classifier(), ki.ExemplarMemory(8)
    callback = incremental(memory, ki.EEIL(1), folder / "backup_epoch")
    fit(model, TASKS[0], callback)
    cut = Cut(model, images)
    with contextlib.suppress(CutError):
        fit(model, TASKS[1], cut, callback)
    expected["backup_epoch"] = cut.logits
    np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
