"""A model as a LiteRT file, in float32 or int8."""

import numpy as np
import tensorflow as tf

from keras_incremental._types import PathLike
from keras_incremental.exemplars import ExemplarMemory
from keras_incremental.files import as_path
from keras_incremental.models import IncrementalClassifier

_REPRESENTATIVE = 200


def litert(
    model: IncrementalClassifier,
    path: PathLike,
    quantize: str | None = None,
    memory: ExemplarMemory | None = None,
) -> None:
    """Writes a model as a LiteRT file, for phones and small devices.

    What it takes and returns is the same with and without `quantize`: raw
    images in, float32, and logits out, one for each class, float32.

    With `quantize="int8"` weights and activations are 8-bit integers, in a file
    of 30 % of the size. The ranges of the activations are measured on up to 200
    exemplars, as many of each class, the best first. Measure the accuracy:
    `docs/edge.md` has cases where it stays, and one where it falls.

    Args:
        model: an `IncrementalClassifier` that knows one class or more.
        path: `str` or path-like that ends in `.tflite`.
        quantize: `None` or `"int8"`.
        memory: the `ExemplarMemory` of the model, for `"int8"`.

    Raises:
        TypeError: if `model` or `memory` is something else.
        ValueError: for another `quantize` or ending of `path`, a model
            without classes, or a memory without exemplars or of another model.

    >>> import tempfile
    >>> import keras_incremental as ki
    >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
    >>> model.add_classes(["cat", "dog"])
    >>> litert(model, tempfile.mkdtemp() + "/model.tflite")
    """
    if not isinstance(model, IncrementalClassifier):
        raise TypeError(
            f"litert got a {type(model).__name__}; expected an "
            "IncrementalClassifier. Other models have Keras' own "
            'model.export(path, format="litert").'
        )
    if quantize not in (None, "int8"):
        raise ValueError(f"quantize={quantize!r}; expected None or 'int8'.")
    options = {} if quantize is None else _int8(model, memory)
    model.export(as_path(path), "litert", verbose=False, **options)


def _int8(model, memory) -> dict:
    """Returns the options of the converter, as `Model.export` takes them."""
    if not isinstance(memory, ExemplarMemory):
        raise TypeError(
            f"quantize='int8' measures the ranges of activations on exemplars, "
            f"and memory={memory!r}. Pass the model's ExemplarMemory, or one "
            "with a few images: memory = ExemplarMemory(200); "
            "memory.add_from(model, images, labels)."
        )
    memory.check_classes(model.labels)
    labels = memory.labels_with_exemplars()
    if not labels:
        raise ValueError(
            "The memory has no exemplars, on which quantize='int8' measures "
            "the ranges of activations. memory.add_from(model, images, labels) "
            "adds some."
        )

    def images():
        stored, each = memory.stored(), -(-_REPRESENTATIVE // len(labels))
        for label in labels:
            for image in stored[label].head(each).decoded():
                yield [image[np.newaxis].astype("float32")]

    return {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "representative_dataset": images,
        "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
    }
