"""Runs every signature of published versions with TensorFlow alone.

    python tests/export/read_alone.py INPUTS.npz OUTPUTS.npz NAME=FOLDER ...

As a server does it: tag `serve`, a session, tensors by the names that the
signatures give. INPUTS holds `name/signature/anything`, OUTPUTS gets
`name/signature/anything/output`. Strings are arrays of fixed-width bytes: none
of those passed may end in a zero byte, which NumPy would strip.
"""

import sys

sys.modules["keras"] = None  # Any import of Keras fails from here on.

# ruff: noqa: E402  (it has to fail in what is imported here as well)

import numpy as np
import tensorflow as tf


def run(folder, inputs):
    """Returns the outputs of a version by key of the input and own name."""
    results = {}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], folder)
        for key, value in inputs.items():
            signature = meta_graph.signature_def[key.split("/")[1]]
            (feed,) = signature.inputs.values()
            names = {k: v.name for k, v in signature.outputs.items()}
            if value.dtype.kind == "S":
                value = value.astype(object)
            outputs = session.run(names, {feed.name: value})
            for name, output in outputs.items():
                if output.dtype == object:
                    output = np.array(output.tolist())
                results[f"{key}/{name}"] = output
    return results


def main(inputs_path, outputs_path, *versions):
    with np.load(inputs_path, allow_pickle=False) as file:
        inputs = dict(file)
    results = {}
    for version in versions:
        name, folder = version.split("=", 1)
        results |= run(
            folder,
            {k: v for k, v in inputs.items() if k.startswith(f"{name}/")},
        )
    loaded = [name for name in sys.modules if name.startswith("keras")]
    if loaded != ["keras"]:  # the one that cannot be imported
        raise SystemExit(f"Keras has been imported: {loaded}")
    np.savez(outputs_path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
