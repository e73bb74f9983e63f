"""Edge: what exported models weigh, how fast and how accurate they are.

    python benchmarks/edge.py

Teaches scikit-learn's digits, two at a time, and exports the model as LiteRT in
float32 and int8, as ONNX and as OpenVINO. Prints for each its size, its
accuracy on all classes, the largest difference of its logits from those of
`predict`, and the median milliseconds of one image on one thread, formats in
turns, with the ratio to LiteRT in float32.
"""

import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import onnxruntime
import openvino
import tensorflow as tf
from absl import app, flags, logging
from ai_edge_litert.interpreter import Interpreter

import keras_incremental as ki
from keras_incremental.methods import BY_NAME

_RUNS = flags.DEFINE_list(
    "runs",
    [
        "small:eeil",
        "small:partial_sharing",
        "small:icarl",
        "small:bic",
        "small:analytic",
        "efficientnet_lite0:analytic",
    ],
    "Each a backbone and a method.",
)
_EPOCHS = flags.DEFINE_integer("epochs", 40, "Of each task.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Of efficientnet_lite0.")
_TRAIN = flags.DEFINE_integer("train", 1347, "Images to learn.")
_TEST = flags.DEFINE_integer("test", 450, "Images to measure accuracy by.")
_TURNS = flags.DEFINE_integer("turns", 100, "Timed, of each format.")


def digits(size, channels):
    """Returns images and labels to learn, and to measure by."""
    x_train, y_train, x_test, y_test = ki.scenarios.load_digits()

    def resized(images, count):
        images = tf.image.resize(images[:count], (size, size), "nearest")
        return np.repeat(images.numpy(), channels, axis=-1)

    return (
        resized(x_train, _TRAIN.value),
        y_train[: _TRAIN.value],
        resized(x_test, _TEST.value),
        y_test[: _TEST.value],
    )


def taught(backbone, method):
    """Returns a model of all digits, its memory, test images and labels."""
    keras.utils.set_random_seed(0)
    if backbone == "small":
        *data, x_test, y_test = digits(8, 1)
        network, branch_at = ki.backbones.small((8, 8, 1)), "stage2"
    else:
        size = _IMAGE_SIZE.value
        *data, x_test, y_test = digits(size, 3)
        network = getattr(ki.backbones, backbone)((size, size, 3), "imagenet")
        branch_at = 0.8
    model = ki.IncrementalClassifier(network, branch_at=branch_at)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    memory = ki.ExemplarMemory(100)
    step = ki.IncrementalCallback(
        memory if BY_NAME[method].needs_memory else None, BY_NAME[method]
    )
    for first in range(0, 10, 2):
        rows = np.isin(data[1], (first, first + 1))
        model.fit(
            data[0][rows],
            data[1][rows],
            batch_size=32,
            epochs=_EPOCHS.value,
            verbose=0,
            callbacks=[step],
        )
    if not len(memory):
        memory.add_from(model, *data)
    return model, memory, x_test, np.asarray(y_test)


def litert(path):
    """Returns a function of one image, by LiteRT's interpreter."""
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (image,), (logits,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )

    def run(images):
        interpreter.set_tensor(image["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(logits["index"])

    return run


def onnx(path):
    """Returns a function of one image, by ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    return lambda images: session.run(None, {"images": images})[0]


def ir(path):
    """Returns a function of one image, by OpenVINO in float32."""
    compiled = openvino.Core().compile_model(
        path,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": 1,
            "ENABLE_CPU_PINNING": False,
        },
    )
    return lambda images: compiled(images)[0]


def exported(model, memory, home):
    """Returns `(files, function)` of each format by its name."""
    ki.export.litert(model, home / "float.tflite")
    ki.export.litert(model, home / "int8.tflite", "int8", memory)
    model.export(home / "model.onnx", format="onnx", verbose=False)
    model.export(home / "model.xml", format="openvino", verbose=False)
    return {
        "LiteRT": (["float.tflite"], litert(home / "float.tflite")),
        "LiteRT int8": (["int8.tflite"], litert(home / "int8.tflite")),
        "ONNX Runtime": (["model.onnx"], onnx(home / "model.onnx")),
        "OpenVINO": (["model.xml", "model.bin"], ir(home / "model.xml")),
    }


def milliseconds(functions, image):
    """Returns the median of each function's runs, made in turns."""
    seconds = [[] for _ in functions]
    for _ in range(_TURNS.value):
        for timed, function in zip(seconds, functions, strict=True):
            started = time.perf_counter()
            function(image)
            timed.append(time.perf_counter() - started)
    return [1e3 * statistics.median(timed) for timed in seconds]


def report(backbone, method, home):
    """Prints the figures of a model in all formats."""
    model, memory, images, labels = taught(backbone, method)
    expected = model.predict(images, verbose=0)
    rows = [images[i : i + 1].astype("float32") for i in range(len(images))]
    accuracy = np.mean(np.array(model.labels)[expected.argmax(1)] == labels)
    print(f"{backbone} {method}: accuracy of predict {accuracy:.4f}")
    formats = exported(model, memory, home)
    times = milliseconds([run for _, run in formats.values()], rows[0])
    for (name, (files, run)), took in zip(formats.items(), times, strict=True):
        logits = np.concatenate([run(row) for row in rows])
        predicted = np.array(model.labels)[logits.argmax(1)]
        size = sum((home / file).stat().st_size for file in files)
        print(
            f"  {name}: {size / 1e3:.0f} kB, accuracy "
            f"{np.mean(predicted == labels):.4f}, difference "
            f"{np.abs(logits - expected).max():.1e} of "
            f"{np.ptp(expected):.1f}, {took:.3f} ms an image, ratio "
            f"{took / times[0]:.2f}",
            flush=True,
        )


def main(argv):
    """Prints the figures; absl calls it."""
    del argv
    logging.set_verbosity(logging.WARNING)
    print(
        f"keras {keras.__version__}, tensorflow {tf.__version__}, onnxruntime "
        f"{onnxruntime.__version__}, openvino {openvino.__version__}"
    )
    for run in _RUNS.value:
        with tempfile.TemporaryDirectory() as folder:
            report(*run.split(":"), pathlib.Path(folder))


if __name__ == "__main__":
    app.run(main)
