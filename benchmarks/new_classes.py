r"""How long a few photos of new classes take to become a served version.

    python benchmarks/new_classes.py [--image_dir=PHOTOS]

Teaches EfficientNet-Lite0, with the features of inner layers that
teach.py takes, sixteen classes by `Analytic` and publishes it; loads it in a
process of its own, and measures from the call of `fit`, with 20 images of each
of four new classes, to the new version. Without --image_dir, a folder of 20
class folders, the classes are handwritten digits, dark and light.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import sklearn.datasets
from absl import app, flags

import keras_incremental as ki

SIZES = [16, 4]
SOLVERS = {
    "lda": ki.closed_form.LDA(),
    "nearest_mean": ki.closed_form.NearestClassMean(),
}

_IMAGE_DIR = flags.DEFINE_string("image_dir", None, "20 class folders.")
_PIXELS = flags.DEFINE_integer("pixels", 128, "Of each side.")
_IMAGES = flags.DEFINE_integer("images", 20, "Of each class.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the order of the classes.")
_TURNS = flags.DEFINE_integer("turns", 3, "Processes that learn the classes.")
_POOLED_LAYERS = flags.DEFINE_list(
    "pooled_layers",
    ["stage5", *(f"stage6_block{i}_out" for i in (1, 2, 3, 4))],
    "Whose features stand beside the last ones: as in teach.py, or none.",
)
_SOLVER = flags.DEFINE_enum("solver", "lda", list(SOLVERS), "Of the sums.")
_FOLDER = flags.DEFINE_string("folder", None, "Where a process learns them.")


def scenario():
    """Returns sixteen classes and four."""
    if _IMAGE_DIR.value is not None:
        return ki.ClassIncrementalScenario.from_directory(
            _IMAGE_DIR.value,
            image_size=_PIXELS.value,
            classes_per_task=SIZES,
            samples_per_class=_IMAGES.value,
            seed=_SEED.value,
        )
    digits = sklearn.datasets.load_digits()
    dark = np.repeat(255 - digits.images[..., None] * 255 / 16, 3, axis=-1)
    images = np.concatenate([dark, 255 - dark])
    labels = np.concatenate([digits.target, digits.target + 10])
    place = np.zeros(len(labels), int)  # of each image in its class
    for label in range(20):
        place[labels == label] = np.arange(np.sum(labels == label))
    size = (_PIXELS.value, _PIXELS.value)

    def chosen(rows):
        enlarged = keras.ops.image.resize(images[rows], size)
        return np.asarray(enlarged).round().astype("uint8"), labels[rows]

    train, test = place < _IMAGES.value, place >= 140
    return ki.ClassIncrementalScenario.from_arrays(
        *chosen(train), *chosen(test), classes_per_task=SIZES, seed=_SEED.value
    )


def learn(model, task, **options) -> dict:
    """Teaches a task's classes and publishes; returns the seconds it takes."""
    method = ki.Analytic(SOLVERS[_SOLVER.value])
    incremental = ki.IncrementalCallback(method=method, **options)
    images = task.train.batch(32)
    clock, processor = time.perf_counter(), time.process_time()
    model.fit(images, callbacks=[incremental], verbose=0)
    return {
        "seconds": time.perf_counter() - clock,
        "processor_seconds": time.process_time() - processor,
    }


def accuracy(model, task) -> float:
    """Returns the accuracy on a task's own test images."""
    data = task.test.batch(128)
    return model.evaluate(data, verbose=0, return_dict=True)["accuracy"]


def teach_first(folder: pathlib.Path) -> None:
    """Leaves a published model of sixteen classes."""
    shape = (_PIXELS.value, _PIXELS.value, 3)
    backbone = ki.backbones.efficientnet_lite0(shape, weights="imagenet")
    backbone = ki.backbones.with_pooled_layers(backbone, _POOLED_LAYERS.value)
    model = ki.IncrementalClassifier(backbone)
    learn(model, scenario()[0], publish_to=folder / "served")
    model.save(folder / "model.keras")


def teach_more(folder: pathlib.Path) -> dict:
    """Loads the model and teaches it four classes; returns figures."""
    first, second = scenario()
    started = time.perf_counter()
    model = keras.models.load_model(folder / "model.keras")
    loaded = time.perf_counter() - started
    seconds = learn(model, second, publish_to=folder / "served")
    after = accuracy(model, first)
    before = accuracy(keras.models.load_model(folder / "model.keras"), first)
    return {
        "loading": loaded,
        **seconds,
        "old_before": before,
        "old_after": after,
        "new": accuracy(model, second),
    }


def main(argv):
    """Prints the figures of each turn."""
    if _FOLDER.value is not None:
        figures = teach_more(pathlib.Path(_FOLDER.value))
        print(json.dumps(figures), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        teach_first(pathlib.Path(folder))
        command = [sys.executable, __file__, *argv[1:], f"--folder={folder}"]
        command += [
            f"--{f.name}={f.value}" for f in (_PIXELS, _IMAGES, _SEED, _SOLVER)
        ]
        if _IMAGE_DIR.value is not None:
            command.append(f"--image_dir={_IMAGE_DIR.value}")
        for _ in range(_TURNS.value):
            subprocess.run(command, check=True)


if __name__ == "__main__":
    app.run(main)
