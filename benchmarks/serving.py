"""Serving: what a branch costs at inference, and what a class costs.

    python benchmarks/serving.py

Publishes models with 1, 5 and 10 branches, and with 10, 100 and 1000 classes,
loads them as a server does, and prints the median latency of a request of raw
images for each, requests in turns, with the ratio to the smallest.
"""

import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

import keras_incremental as ki
from keras_incremental.networks import BranchedNetwork

_BRANCHES = flags.DEFINE_list("branches", ["1", "5", "10"], "")
_CLASSES = flags.DEFINE_list("classes", ["10", "100", "1000"], "")
_BATCH = flags.DEFINE_integer("batch_size", 8, "Images of a request.")
_REQUESTS = flags.DEFINE_integer("requests", 60, "Timed, of each model.")
_BACKBONE = flags.DEFINE_string("backbone", "resnet32", "Of our backbones.")
_BRANCH_AT = flags.DEFINE_string("branch_at", "stage2", "Of the branches.")


def backbone():
    """Returns the backbone of all models."""
    return getattr(ki.backbones, _BACKBONE.value)((32, 32, 3))


def with_branches(count):
    """Returns a model of a base and `count` branches, two classes each."""
    model = ki.IncrementalClassifier(backbone(), branch_at=_BRANCH_AT.value)
    model.add_classes([0, 1])
    for branch in range(1, count + 1):
        model.network = BranchedNetwork.on(model.network).with_branch()
        model.add_classes([2 * branch, 2 * branch + 1])
    return model


def with_classes(count):
    """Returns a model of one head of `count` classes."""
    model = ki.IncrementalClassifier(backbone(), capacity=count)
    model.add_classes(range(count))
    return model


def served(model, folder):
    """Publishes a model and returns its signature for raw images."""
    path = ki.export.publish(model, folder)
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    return lambda images: (loaded, signature(**{name: images}))


def latencies(requests, images):
    """Returns the median seconds of each request, made in turns."""
    for request in requests:
        request(images), request(images)
    seconds = [[] for _ in requests]
    for _ in range(_REQUESTS.value):
        for timed, request in zip(seconds, requests, strict=True):
            started = time.perf_counter()
            _, outputs = request(images)
            tf.nest.map_structure(np.asarray, outputs)
            timed.append(time.perf_counter() - started)
    return [statistics.median(timed) for timed in seconds]


def compare(what, counts, build, images, home):
    """Prints the latency of a model for each count; returns seconds."""
    requests = [
        served(build(count), home / f"{what}_{count}") for count in counts
    ]
    seconds = latencies(requests, images)
    for count, latency in zip(counts, seconds, strict=True):
        print(
            f"{count} {what}: {latency * 1e3:.2f} ms a request, "
            f"ratio {latency / seconds[0]:.2f}"
        )
    return seconds


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    logging.set_verbosity(logging.WARNING)
    keras.utils.set_random_seed(0)
    shape = (_BATCH.value, 32, 32, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, "uint8")
    print(
        f"keras {keras.__version__}, tensorflow {tf.__version__}, "
        f"{os.cpu_count()} cores; {_BACKBONE.value}, {_BATCH.value} images a "
        f"request, branches at {_BRANCH_AT.value}"
    )
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        branches = [int(count) for count in _BRANCHES.value]
        seconds = compare("branches", branches, with_branches, images, home)
        if len(branches) > 1:
            more = (seconds[-1] - seconds[0]) / (branches[-1] - branches[0])
            print(f"one more branch: {more * 1e3:.2f} ms a request")
        classes = [int(count) for count in _CLASSES.value]
        compare("classes", classes, with_classes, images, home)


if __name__ == "__main__":
    app.run(main)
