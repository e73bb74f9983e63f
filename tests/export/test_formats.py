"""`model.export` and what reads a model without it, by the real runtimes."""

import pathlib
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki

METHODS = {
    "eeil": ki.EEIL(finetune_epochs=1),
    "partial_sharing": ki.PartialSharing(),
    "icarl": ki.ICaRL(),
    "bic": ki.BiC(),
    "branched_rehearsal": ki.BranchedRehearsal(),
    "analytic": ki.Analytic(),
}
ATOL = 1e-4
DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "edge.md"


@pytest.fixture(scope="module", autouse=True)
def _no_telemetry():
    """OpenVINO sends none in CI; else it forks this process for each event."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CI", "true")
        yield


def backbone():
    """Returns a user's network that augments and drops in training."""
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.RandomFlip(),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(name="shared"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(8),
        ]
    )


def untaught():
    keras.utils.set_random_seed(0)
    return ki.IncrementalClassifier(backbone(), branch_at="shared")


def raw_images(count):
    return np.random.default_rng(0).uniform(0, 255, (count, 4, 4, 1))


def by_saved_model(path):
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    (output,) = signature.structured_outputs

    def run(images):
        assert loaded  # must stay while the signature is used
        return signature(**{name: tf.constant(images)})[output].numpy()

    return run


def exported(model, folder):
    model.export(folder / "saved", verbose=False)
    return by_saved_model(folder / "saved")


def saved(model, folder):
    tf.saved_model.save(model, str(folder / "saved"))
    return by_saved_model(folder / "saved")


def by_litert(content):
    runtime = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = runtime.Interpreter(model_content=content)
    (image,) = interpreter.get_input_details()
    (logits,) = interpreter.get_output_details()

    def run(images):
        interpreter.resize_tensor_input(image["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(image["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(logits["index"])

    return run


def litert(model, folder):
    ki.export.litert(model, folder / "model.tflite")  # by model.export
    return by_litert((folder / "model.tflite").read_bytes())


def converter(model, folder):
    return by_litert(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def onnx(model, folder):
    runtime = pytest.importorskip("onnxruntime")
    path = folder / "model.onnx"
    model.export(path, format="onnx", verbose=False)
    session = runtime.InferenceSession(path)
    (output,) = session.get_outputs()
    assert output.shape[1:] == [model.num_classes]
    return lambda images: session.run(None, {"images": images})[0]


def openvino(model, folder):
    runtime = pytest.importorskip("openvino")
    path = folder / "model.xml"
    model.export(path, format="openvino", verbose=False)
    # OpenVINO computes in bfloat16 where the processor can, unless told.
    compiled = runtime.Core().compile_model(
        path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    assert len(compiled.outputs) == 1
    return lambda images: compiled(images)[0]


FORMATS = [exported, saved, litert, converter, onnx, openvino]


def check(model, run, atol=ATOL):
    """Compares batches of several sizes with `predict`."""
    images = raw_images(5).astype("float32")
    expected = model.predict(images, verbose=0)
    assert expected.shape == (5, model.num_classes)
    for count in (1, 5, 3):
        found = run(images[:count])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:count], atol=atol)


@pytest.fixture(scope="module")
def two_heads():
    model = untaught()
    model.add_classes([0, 1], seed=1)
    model.add_classes([2], seed=2)
    return model


@pytest.mark.parametrize("write", [exported, saved])
def test_a_saved_model_gives_the_logits_of_predict(two_heads, tmp_path, write):
    check(two_heads, write(two_heads, tmp_path))


def test_the_signature_has_raw_images_and_the_classes_in_use(
    two_heads, tmp_path
):
    tf.saved_model.save(two_heads, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    signature = loaded.signatures["serving_default"]
    assert signature.structured_input_signature[1] == {
        "images": tf.TensorSpec((None, 4, 4, 1), tf.float32, "images")
    }
    (logits,) = signature.structured_outputs.values()
    assert logits.shape.as_list() == [None, 3]


def test_a_model_without_classes_is_refused(tmp_path):
    for write in (exported, saved, litert):
        with pytest.raises(ValueError, match="knows no classes"):
            write(untaught(), tmp_path)


@pytest.mark.parametrize(
    "path, format, message",
    [
        ("model.bin", "litert", "'.tflite'"),
        ("model.bin", "openvino", "'.xml'"),
        ("model", "tensorrt", "Supported formats"),
    ],
)
def test_formats_say_what_they_take(two_heads, path, format, message):
    with pytest.raises(ValueError, match=message):
        two_heads.export(path, format=format)


def test_a_missing_package_is_named_with_the_line_that_installs_it(
    two_heads, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"pip install 'keras_incremental\["):
        two_heads.export(tmp_path / "model.xml", format="openvino")


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"quantize": "int4"}, ValueError, "None or 'int8'"),
        ({"quantize": "int8"}, TypeError, "memory=None"),
        ({"quantize": "int8", "memory": []}, TypeError, "add_from"),
        (
            {"quantize": "int8", "memory": ki.ExemplarMemory(9)},
            ValueError,
            "no exemplars",
        ),
    ],
)
def test_litert_says_what_it_takes(
    two_heads, tmp_path, options, error, message
):
    with pytest.raises(error, match=message):
        ki.export.litert(two_heads, tmp_path / "model.tflite", **options)


def test_litert_takes_no_other_model(tmp_path):
    with pytest.raises(TypeError, match="got a Sequential"):
        ki.export.litert(backbone(), tmp_path / "model.tflite")


def test_int8_refuses_a_memory_of_another_model(two_heads, tmp_path):
    memory, other = ki.ExemplarMemory(9), untaught()
    other.add_classes([7])
    memory.add_from(other, raw_images(2), [7, 7])
    with pytest.raises(ValueError, match="does not know"):
        ki.export.litert(two_heads, tmp_path / "model.tflite", "int8", memory)


@pytest.fixture(scope="module", params=METHODS)
def taught(request, blobs):
    """A model after three tasks, and its memory."""
    model, memory = untaught(), ki.ExemplarMemory(60)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    step = ki.IncrementalCallback(memory, METHODS[request.param])
    for task in range(3):
        images, labels = blobs([2 * task, 2 * task + 1])
        model.fit(
            images, labels, epochs=5, batch_size=8, verbose=0, callbacks=[step]
        )
    if not len(memory):
        memory.add_from(model, *blobs(range(6)))
    return model, memory


@pytest.mark.slow
@pytest.mark.parametrize("write", FORMATS)
def test_every_format_gives_the_logits_of_predict(taught, tmp_path, write):
    check(taught[0], write(taught[0], tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("write", [saved, onnx])
def test_a_loaded_model_is_exported_as_well(taught, tmp_path, write):
    taught[0].save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    check(model, write(model, tmp_path))


@pytest.mark.slow
def test_int8_computes_in_integers_and_names_the_same(taught, tmp_path):
    model, memory = taught
    ki.export.litert(model, tmp_path / "int8.tflite", "int8", memory)
    content = (tmp_path / "int8.tflite").read_bytes()
    runtime = pytest.importorskip("ai_edge_litert.interpreter")
    tensors = runtime.Interpreter(model_content=content).get_tensor_details()
    floats = [t["name"] for t in tensors if t["dtype"] == np.float32]
    assert len(floats) <= 3, floats  # images, logits, the sign in ICaRL
    images = np.concatenate([memory.images(label) for label in memory.labels])
    images = images.astype("float32")
    found = by_litert(content)(images)
    expected = model.predict(images, verbose=0)
    assert np.mean(found.argmax(1) == expected.argmax(1)) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("write", [exported, saved, litert, onnx, openvino])
def test_mixed_precision_is_exported_in_float32(tmp_path, write):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = untaught()
        model.add_classes([0, 1])
        run = write(model, tmp_path)
    finally:
        keras.config.set_dtype_policy("float32")
    check(model, run, atol=0.02)
    exact = ki.models.in_float32(model)
    check(exact, run)


@pytest.mark.slow
def test_a_published_version_converts_with_built_in_operations(
    two_heads, tmp_path
):
    version = ki.export.publish(two_heads, tmp_path)
    convert = tf.lite.TFLiteConverter.from_saved_model(
        str(version), signature_keys=["serving_default"]
    )
    runtime = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = runtime.Interpreter(model_content=convert.convert())
    images = raw_images(3).astype("float32")
    served = interpreter.get_signature_runner("serving_default")(images=images)
    expected = tf.nn.softmax(two_heads.predict(images, verbose=0))
    np.testing.assert_allclose(served["probabilities"], expected, atol=ATOL)
    assert served["classes"][0, 0].decode() == str(expected[0].numpy().argmax())


@pytest.mark.slow
def test_the_code_of_the_document_runs(two_heads, tmp_path, monkeypatch):
    memory = ki.ExemplarMemory(9)
    memory.add_from(two_heads, raw_images(6), [0, 1, 2] * 2)
    text = DOCUMENT.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names = {"ki": ki, "tf": tf, "model": two_heads, "memory": memory}
    names["images"] = raw_images(3).astype("float32")
    (tmp_path / "docs" / "demo").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(block, names)
    assert (tmp_path / "docs" / "demo" / "labels.json").exists()
