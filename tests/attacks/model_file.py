"""Damaged `model.keras`: the model that was saved, or an error."""

import functools
import json

import keras
import numpy as np
from damage import count_reads, damaged

import keras_incremental as ki

SHORT = 0
LONG = 20
_COPIES = 5  # a round


def attack(rounds, seed, folder):
    """Reads damaged copies by the package, and by Keras alone."""
    random = np.random.default_rng(seed)
    path = folder / "model.keras"
    model = _model()
    model.save(path)
    whole = path.read_bytes()
    figures = {}
    for name, load, named in (
        ("", ki.model_files.load_model, str(path)),
        ("Keras: ", keras.models.load_model, ""),
    ):
        found = count_reads(
            (
                _damaged_read(path, copy, load)
                for copy in damaged(whole, rounds * _COPIES, random)
            ),
            [_contents(model)],
            named,
        )
        figures |= {f"{name}{key}": value for key, value in found.items()}
    figures["wrong"] += figures.pop("Keras: wrong")
    return figures


def _model():
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(16),
            keras.layers.BatchNormalization(),
        ]
    )
    model = ki.IncrementalClassifier(backbone, capacity=4)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.add_classes(["cat", "dog"])
    model.optimizer.build(model.trainable_variables)
    return model


def _damaged_read(path, copy, load):
    path.write_bytes(copy)
    return functools.partial(_read, path, load)


def _read(path, load):
    return _contents(load(path))


def _contents(model):
    variables = [*model.state_variables(), *model.optimizer.variables]
    config = json.dumps(model.get_config(), default=str)
    return config, [np.asarray(value).tobytes() for value in variables]
