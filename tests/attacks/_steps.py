"""The program that is attacked: three steps on the digits, and their end.

It is backed up, keeps its exemplars in files, and publishes what a gate lets
out. Run again after a kill it goes on; at its end it writes `end.json`, which
has to be equal for any two runs.
"""

import argparse
import gc
import hashlib
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.export import Gate

EPOCHS = 4
CLASSES = [range(4), range(4, 7), range(7, 10)]


def make_model():
    layers = keras.layers
    backbone = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(32, use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
        ]
    )
    model = ki.IncrementalClassifier(backbone)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    return model


def digest(arrays):
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.asarray(array).tobytes())
    return content.hexdigest()


def reports_of(callback):
    """Returns the reports but for their seconds, and the folder's name."""
    for report in callback.reports:
        fields = report.to_json()
        if report.published:
            fields["published"] = pathlib.Path(report.published).name
        yield {k: v for k, v in fields.items() if not k.endswith("seconds")}


def fingerprints(served):
    """Returns what each version says of the model that it holds."""
    name = "assets.extra/keras_incremental.json"
    return {
        path.name: json.loads((path / name).read_text())["fingerprint"]
        for path in sorted(served.glob("[0-9]*"))
    }


def run(folder):
    keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    x_train, y_train, x_test, y_test = ki.scenarios.load_digits()
    model = make_model()
    memory = ki.ExemplarMemory(
        60, storage=ki.exemplars.DiskStorage(folder / "exemplars")
    )
    callback = ki.IncrementalCallback(
        memory,
        ki.EEIL(finetune_epochs=EPOCHS),
        backup_dir=folder / "backup",
        publish_to=folder / "served",
        publish_if=Gate(max_old_accuracy_drop=0.15, min_new_accuracy=0.8),
    )
    for classes in CLASSES:
        new, seen = np.isin(y_train, classes), y_test <= max(classes)
        model.fit(
            x_train[new],
            y_train[new],
            batch_size=32,
            epochs=EPOCHS,
            validation_data=(x_test[seen], y_test[seen]),
            verbose=0,
            callbacks=[callback],
        )
    end = {
        "weights": digest(model.state_variables()),
        "memory": {k: digest([memory.images(k)]) for k in memory.labels},
        "results": digest([model.predict(x_test, verbose=0)]),
        "reports": [*reports_of(callback)],
        "versions": fingerprints(folder / "served"),
    }
    with ki.files.atomic_write(folder / "end.json", "w") as file:
        json.dump(end, file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args()
    gc.freeze()  # what is imported is never garbage
    gc.set_threshold(100_000, 20, 20)
    run(options.folder)
