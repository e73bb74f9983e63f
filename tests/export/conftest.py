"""Models to publish, and what reads what was published."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_incremental as ki
from keras_incremental.export import publish
from keras_incremental.score_rules import AffinePerHead

HERE = pathlib.Path(__file__).parent
NAMES = ["cat", "dög/🐕", "猫 with spaces", 'say "d"', "5"]


@pytest.fixture(scope="session")
def grown():
    """A model of 8x8 grey images that learned 3 + 2 classes."""
    keras.utils.set_random_seed(1)
    model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
    model.add_classes([30, 10, 20], NAMES[:3])
    model.add_classes([50, 40], NAMES[3:])
    spread(model.network.head)
    return model


@pytest.fixture(scope="session")
def branched(add_branch):
    """A model with a trunk of two convolutions, and one branch."""
    keras.utils.set_random_seed(2)
    model = ki.IncrementalClassifier(
        ki.backbones.small((8, 8, 1)), branch_at="stage2"
    )
    model.add_classes([0, 1, 2], NAMES[:3])
    add_branch(model, [3, 4], NAMES[3:])
    spread(model.network.base().head)
    spread(model.network.branch_heads()[-1])
    model.score_rule = AffinePerHead([3, 2], [1.0, 0.5], [0.0, 0.25])
    return model


def spread(head):
    """Gives a head large weights, so that probabilities differ clearly."""
    random = np.random.default_rng(3)
    for weight in head.weights:
        if weight.name.startswith(("kernel", "bias")):
            weight.assign(random.normal(0, 2, weight.shape))


@pytest.fixture(scope="session")
def digit_images():
    """64 images of random pixels, 8x8 grey uint8."""
    random = np.random.default_rng(4)
    return random.integers(0, 256, (64, 8, 8, 1), np.uint8)


@pytest.fixture(scope="session")
def probabilities_of():
    """Returns a function to a model's own probabilities, `(batch, classes)`."""

    def compute(model, images):
        logits = model.predict(images, verbose=0).astype("float64")
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    return compute


@pytest.fixture(scope="session")
def grown_version(grown, tmp_path_factory):
    """The folder of a published version of `grown`; tests only read it."""
    return publish(grown, tmp_path_factory.mktemp("grown"))


@pytest.fixture(scope="session")
def branched_version(branched, tmp_path_factory):
    """The folder of a published version of `branched`; tests only read it."""
    return publish(branched, tmp_path_factory.mktemp("branched"))


@pytest.fixture(scope="module")
def start_server():
    """Returns a function that starts `model_server.py` on arguments.

    It returns the ports, `{"grpc": ..., "rest": ...}`. The server is stopped
    when the tests of the module end.
    """
    processes = []

    def start(*args):
        process = subprocess.Popen(
            [sys.executable, HERE / "model_server.py", *args],
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return json.loads(process.stdout.readline())

    yield start
    for process in processes:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="session")
def any_size():
    """A model of two classes that takes colour images of any size."""
    keras.utils.set_random_seed(5)
    backbone = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3),
        ]
    )
    model = ki.IncrementalClassifier(backbone)
    model.add_classes([0, 1])
    return model


@pytest.fixture(scope="session")
def any_size_version(any_size, tmp_path_factory):
    """The folder of a published version of `any_size`; tests only read it."""
    folder = tmp_path_factory.mktemp("any_size")
    return publish(any_size, folder, image_size=(11, 9))


@pytest.fixture(scope="session")
def vectors():
    """A model of two classes whose inputs are vectors."""
    keras.utils.set_random_seed(6)
    backbone = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model = ki.IncrementalClassifier(backbone)
    model.add_classes([0, 1])
    return model
