"""Publishes under a reader that loads the newest version again and again."""

import json
import os
import pathlib
import subprocess
import sys

import keras

import keras_incremental as ki
from keras_incremental.export.publishing import KEEP

SHORT = 0
LONG = 10
_BEYOND_ROUNDS = 10
_SEVERAL = 5
_READER = pathlib.Path(__file__).parents[1] / "export" / "read_newest.py"


def attack(rounds, seed, folder):
    """Publishes `rounds` + 10 versions, each of one class more.

    The reader must have seen several of them, and the last.
    """
    base, stop = folder / "served", folder / "stop"
    base.mkdir()
    publications = rounds + _BEYOND_ROUNDS
    reader = subprocess.Popen(
        [sys.executable, _READER, base, stop],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    reader.stdout.readline()  # it has begun
    _publish(publications, seed, base)
    stop.touch()
    out, error = reader.communicate(timeout=300)
    if reader.returncode:
        raise RuntimeError(f"The reader met what is not whole: {error}")
    loads = json.loads(out)["loads"]
    names = {path.name for path in base.iterdir()}
    newest = {str(publications - index) for index in range(KEEP)}
    return {
        "publications": publications,
        "loads": sum(loads.values()),
        "versions loaded": len(loads),
        "wrong": len(names ^ newest)
        + (str(publications) not in loads)
        + (len(loads) < _SEVERAL),
    }


def _publish(publications, seed, base):
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten()]
    model = ki.IncrementalClassifier(keras.Sequential(layers))
    (bias,) = [w for w in model.network.head.weights if w.name == "bias"]
    for number in range(1, publications + 1):
        model.add_classes([number], [f"class {number - 1}"])
        bias.assign([number / 10] + [0.0] * (bias.shape[0] - 1))
        ki.export.publish(model, base)
