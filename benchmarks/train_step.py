"""The train step: what distillation costs, and what makes the step faster.

    python benchmarks/train_step.py

Times single steps of a ResNet-32 on one batch of random images, in turns in
one process, and prints each as a ratio to a plain Keras `fit` step of the same
backbone: with Keras' own batch normalisation, without L2, of EEIL with the
teacher in the loop, and of EEIL with the teacher's logits cached.
"""

import os
import statistics
import time

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import keras_incremental as ki
from keras_incremental.layers import FusedBatchNormalization
from keras_incremental.objectives import CrossDistilled

_BATCH = flags.DEFINE_integer("batch_size", 128, "Images of 32x32x3.")
_STEPS = flags.DEFINE_integer("steps", 15, "Timed, of each kind.")
_BACKBONE = flags.DEFINE_string("backbone", "resnet32", "Of our backbones.")
_JIT = flags.DEFINE_bool("jit", False, "Time `jit_compile=True` as well.")
_DTYPE_POLICY = flags.DEFINE_string(
    "dtype_policy", "float32", "Keras' dtype policy."
)
_CLASSES = 10


def optimizer():
    """Returns the optimizer of all kinds."""
    return keras.optimizers.SGD(0.01, momentum=0.9)


def backbone(l2=0.5e-4):
    """Returns the backbone of all kinds; `l2` is that of the papers."""
    return getattr(ki.backbones, _BACKBONE.value)(
        (32, 32, 3),
        kernel_regularizer=keras.regularizers.L2(l2) if l2 else None,
    )


def unfused(network):
    """Returns the network with Keras' own batch normalisation."""

    def clone_layer(layer):
        kind = type(layer)
        if kind is FusedBatchNormalization:
            kind = keras.layers.BatchNormalization
        return kind.from_config(layer.get_config())

    return keras.models.clone_model(network, clone_function=clone_layer)


def plain(network, jit=False):
    """Returns a plain classifier on a backbone."""
    model = keras.Sequential([network, keras.layers.Dense(_CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        optimizer=optimizer(), loss=loss, metrics=["accuracy"], jit_compile=jit
    )
    return model


def eeil():
    """Returns a classifier halfway through EEIL: half of its classes old."""
    model = ki.IncrementalClassifier(backbone())
    model.compile(optimizer=optimizer())
    model.add_classes(range(_CLASSES // 2))
    model.add_classes(range(_CLASSES // 2, _CLASSES))
    model.use_objective(CrossDistilled(_CLASSES // 2))
    return model


def batches(images, units, teacher_logits=None):
    """Returns an endless dataset of one batch."""
    x = images
    if teacher_logits is not None:
        x = {"images": images, "teacher_logits": teacher_logits}
    return tf.data.Dataset.from_tensors((x, units)).repeat()


def batch_size():
    """Returns the images of a batch."""
    return _BATCH.value


def random_batch():
    """Returns images and units of one batch."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (_BATCH.value, 32, 32, 3), "uint8")
    return images, (np.arange(_BATCH.value) % _CLASSES).astype("int32")


def random_batches():
    """Returns an endless dataset of one random batch."""
    return batches(*random_batch())


def step_of(model, data):
    """Returns a function that runs one train step."""
    model.make_train_function()
    function, iterator = model.train_function, iter(data)

    def step():
        started = time.perf_counter()
        tf.nest.map_structure(np.asarray, function(iterator))
        return time.perf_counter() - started

    return step


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    keras.config.set_dtype_policy(_DTYPE_POLICY.value)
    keras.utils.set_random_seed(0)
    images, units = random_batch()
    data = batches(images, units)
    distilling, caching = eeil(), eeil()
    cached = caching.teacher_logits({"images": images})
    steps = {
        "plain Keras": step_of(plain(backbone()), data),
        "plain, Keras' own batch normalisation": step_of(
            plain(unfused(backbone())), data
        ),
        "plain, no L2": step_of(plain(backbone(l2=0)), data),
        "EEIL, teacher in the loop": step_of(distilling, data),
        "EEIL, teacher's logits cached": step_of(
            caching, batches(images, units, cached)
        ),
    }
    if _JIT.value:
        steps["plain, jit_compile=True"] = step_of(
            plain(backbone(), jit=True), data
        )
    for step in steps.values():
        step(), step()
    seconds = {name: [] for name in steps}
    for _ in range(_STEPS.value):
        for name, step in steps.items():
            seconds[name].append(step())
    base = statistics.median(seconds["plain Keras"])
    print(
        f"keras {keras.__version__}, tensorflow {tf.__version__}, "
        f"{os.cpu_count()} cores; {_BACKBONE.value}, batch {_BATCH.value}, "
        f"{_DTYPE_POLICY.value}, median of {_STEPS.value} steps in turns"
    )
    for name, timed in seconds.items():
        median = statistics.median(timed)
        print(
            f"{name}: {median * 1e3:.0f} ms a step, ratio {median / base:.3f}"
        )


if __name__ == "__main__":
    app.run(main)
