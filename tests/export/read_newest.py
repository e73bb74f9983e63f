"""Loads the newest version of a model again and again, with TensorFlow alone.

    python tests/export/read_newest.py BASE STOP_FILE

Version n of the model has n classes, named `class 0` to `class n-1`, and the
logits n / 10, 0, 0, ... for a black image. On standard output it writes a line
when it starts, and at last {"loads": {version: times}}. Anything that does not
fit together ends it with an error.
"""

import sys

sys.modules["keras"] = None  # Any import of Keras fails from here on.

# ruff: noqa: E402  (it has to fail in what is imported here as well)
import collections
import json
import os
import pathlib

import numpy as np
import tensorflow as tf


def newest(base):
    """Returns the highest of the names that read as a number, as the server."""
    numbers = [int(name) for name in os.listdir(base) if name.isdigit()]
    return max(numbers, default=None)


def check(folder, number):
    """Raises an error if a version is not whole and of one piece."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.load(
            session, ["serve"], str(folder)
        )
        signature = meta_graph.signature_def["serving_default"]
        outputs = {key: info.name for key, info in signature.outputs.items()}
        images = signature.inputs["images"].name
        found = session.run(outputs, {images: np.zeros((1, 4, 4, 1))})
    logits = np.zeros(number)
    logits[0] = number / 10
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(found["probabilities"], [expected], atol=1e-5)
    names = [f"class {index}" for index in range(number)]
    ranked = [name.decode() for name in found["classes"][0]]
    assert sorted(ranked) == sorted(names)
    text = (folder / "assets" / "class_names.txt").read_text("utf-8")
    assert text.splitlines() == names
    record = (folder / "assets.extra" / "keras_incremental.json").read_text()
    assert json.loads(record)["classes"] == number
    requests = folder / "assets.extra" / "tf_serving_warmup_requests"
    assert sum(1 for _ in tf.data.TFRecordDataset(str(requests))) == 4


def main(base, stop_file):
    loads = collections.Counter()
    base, stop_file = pathlib.Path(base), pathlib.Path(stop_file)
    print("reading", flush=True)
    last = False
    while not last:
        last = stop_file.exists()  # once more after it is there
        number = newest(base)
        if number is not None:
            check(base / str(number), number)
            loads[number] += 1
    print(json.dumps({"loads": loads}))


if __name__ == "__main__":
    main(*sys.argv[1:])
