"""Every signature by gRPC and by REST, from `model_server.py`.

The server stands in for TensorFlow Serving, which is no Python package. It
loads a version in the same way, and requests are made with the protocol
buffers and stubs of `tensorflow-serving-api`.
"""

import base64
import json
import shutil
import types
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

pytestmark = pytest.mark.slow

BATCH = 7
OUTPUTS = {"probabilities", "classes", "class_ids"}


def as_example(image_bytes):
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image_bytes]))
    features = tf.train.Features(feature={"image/encoded": value})
    return tf.train.Example(features=features)


@pytest.fixture(scope="module")
def served(grown_version, branched_version, start_server, tmp_path_factory):
    """Ports, and the folder of the models `grown` and `branched`."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(grown_version, folder / "grown" / "1")
    shutil.copytree(branched_version, folder / "grown" / "2")
    shutil.copytree(branched_version, folder / "branched" / "1")
    ports = start_server(
        f"grown={folder / 'grown'}",
        f"branched={folder / 'branched'}",
        "--label=grown:stable=1",
        "--label=grown:canary=2",
    )
    return types.SimpleNamespace(folder=folder, **ports)


@pytest.fixture(scope="module")
def predict_by_grpc(served):
    """Returns a function that predicts and returns arrays by output."""
    with grpc.insecure_channel(f"127.0.0.1:{served.grpc}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def predict(name, signature, key, value, **spec):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = signature
            if "version" in spec:
                request.model_spec.version.value = spec["version"]
            if "label" in spec:
                request.model_spec.version_label = spec["label"]
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            response = stub.Predict(request, timeout=60)
            return {
                key: tf.make_ndarray(tensor)
                for key, tensor in response.outputs.items()
            }

        yield predict


@pytest.fixture(scope="module")
def rest(served):
    """Returns a function that asks a path of the REST API."""

    def ask(path, request=None):
        body = None if request is None else json.dumps(request).encode()
        url = f"http://127.0.0.1:{served.rest}/v1/models/{path}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, body, timeout=60) as response:
            return json.load(response)

    return ask


@pytest.fixture(scope="module")
def files(digit_images):
    return [tf.io.encode_png(image).numpy() for image in digit_images[:BATCH]]


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


@pytest.fixture(scope="module", params=["grown", "branched"])
def asked(request, grown, branched, digit_images, probabilities_of):
    """A model as the server knows it, and its own probabilities."""
    model = {"grown": grown, "branched": branched}[request.param]
    return types.SimpleNamespace(
        name=request.param,
        names=model.class_names,
        expected=probabilities_of(model, digit_images[:BATCH]),
    )


@pytest.fixture
def requests(digit_images, files):
    """The input and what it is called, by signature."""
    examples = [as_example(data).SerializeToString() for data in files]
    return {
        "serving_default": ("images", digit_images[:BATCH].astype("float32")),
        "serving_bytes": ("image_bytes", files),
        "classify": ("inputs", examples),
    }


@pytest.mark.parametrize(
    "signature", ["serving_default", "serving_bytes", "classify"]
)
class TestPredict:
    def test_by_grpc(self, predict_by_grpc, asked, requests, signature):
        key, value = requests[signature]
        outputs = predict_by_grpc(asked.name, signature, key, value, version=1)
        assert set(outputs) == OUTPUTS
        np.testing.assert_allclose(
            outputs["probabilities"], asked.expected, atol=1e-5
        )
        best = [asked.names[i] for i in asked.expected.argmax(axis=1)]
        assert [n.decode() for n in outputs["classes"][:, 0]] == best

    def test_by_rest(self, rest, asked, requests, signature):
        _, value = requests[signature]
        text = signature != "serving_default"
        rows = [b64(item) for item in value] if text else value.tolist()
        answer = rest(
            f"{asked.name}/versions/1:predict",
            {"signature_name": signature, "instances": rows},
        )
        rows = answer["predictions"]
        assert all(set(row) == OUTPUTS for row in rows)
        np.testing.assert_allclose(
            [row["probabilities"] for row in rows], asked.expected, atol=1e-5
        )
        best = [asked.names[i] for i in asked.expected.argmax(axis=1)]
        assert [row["classes"][0] for row in rows] == best

    def test_by_rest_in_columns(self, rest, asked, requests, signature):
        key, value = requests[signature]
        text = signature != "serving_default"
        column = [b64(item) for item in value] if text else value.tolist()
        answer = rest(
            f"{asked.name}/versions/1:predict",
            {"signature_name": signature, "inputs": {key: column}},
        )
        np.testing.assert_allclose(
            answer["outputs"]["probabilities"], asked.expected, atol=1e-5
        )


class TestClassify:
    @pytest.fixture
    def ask(self, served, files):
        """Returns a function from model and signature to Classify's answer."""

        def classify(name, signature):
            request = classification_pb2.ClassificationRequest()
            request.model_spec.name = name
            request.model_spec.version.value = 1
            request.model_spec.signature_name = signature
            examples = request.input.example_list.examples
            examples.extend(as_example(data) for data in files)
            with grpc.insecure_channel(f"127.0.0.1:{served.grpc}") as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(
                    channel
                )
                return stub.Classify(request, timeout=60)

        return classify

    def check(self, asked, labels, scores):
        ids = [[asked.names.index(label) for label in row] for row in labels]
        assert all(sorted(row) == list(range(5)) for row in ids)
        # Classes that are equally probable may be in either order.
        np.testing.assert_allclose(
            scores,
            np.take_along_axis(asked.expected, np.array(ids), 1),
            atol=1e-5,
        )
        assert np.diff(scores, axis=1).max() <= 0

    def test_by_grpc(self, ask, asked):
        rows = ask(asked.name, "classification").result.classifications
        labels = [[item.label for item in row.classes] for row in rows]
        scores = [[item.score for item in row.classes] for row in rows]
        self.check(asked, labels, scores)

    def test_by_rest(self, rest, asked, files):
        answer = rest(
            f"{asked.name}/versions/1:classify",
            {
                "signature_name": "classification",
                "examples": [{"image/encoded": b64(data)} for data in files],
            },
        )
        labels, scores = (
            [[pair[part] for pair in row] for row in answer["results"]]
            for part in (0, 1)
        )
        self.check(asked, labels, scores)

    def test_a_signature_of_three_outputs_is_refused(self, ask):
        """As by TensorFlow Serving: why there is `classification`."""
        with pytest.raises(grpc.RpcError) as caught:
            ask("grown", "classify")
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("path", ["grown/labels/stable", "grown/versions/1"])
def test_rest_finds_versions_by_label_and_number(
    rest, path, digit_images, grown, probabilities_of
):
    rows = digit_images[:2].tolist()
    answer = rest(f"{path}:predict", {"instances": rows})
    np.testing.assert_allclose(
        [row["probabilities"] for row in answer["predictions"]],
        probabilities_of(grown, digit_images[:2]),
        atol=1e-5,
    )


def test_grpc_finds_versions_by_label_and_the_newest_without(
    predict_by_grpc, digit_images, grown, branched, probabilities_of
):
    images = digit_images[:2].astype("float32")
    for model, spec in [
        (grown, {"label": "stable"}),
        (branched, {"label": "canary"}),
        (branched, {}),
    ]:
        outputs = predict_by_grpc(
            "grown", "serving_default", "images", images, **spec
        )
        np.testing.assert_allclose(
            outputs["probabilities"], probabilities_of(model, images), atol=1e-5
        )


def test_status_lists_the_versions(served, rest):
    versions = rest("grown")["model_version_status"]
    assert [item["version"] for item in versions] == ["1", "2"]
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "branched"
    with grpc.insecure_channel(f"127.0.0.1:{served.grpc}") as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        response = stub.GetModelStatus(request, timeout=60)
    assert [item.version for item in response.model_version_status] == [1]


def test_an_unknown_model_is_not_found(rest, predict_by_grpc, digit_images):
    with pytest.raises(urllib.error.HTTPError) as caught:
        rest("unknown:predict", {"instances": []})
    assert caught.value.code == 404
    with pytest.raises(grpc.RpcError) as caught:
        images = digit_images.astype("float32")
        predict_by_grpc("unknown", "serving_default", "images", images)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_new_version_is_served_without_a_restart(
    served, rest, grown, grown_version, branched, digit_images, probabilities_of
):
    def newest():
        rows = digit_images[:2].tolist()
        answer = rest("branched:predict", {"instances": rows})
        return [row["probabilities"] for row in answer["predictions"]]

    before = probabilities_of(branched, digit_images[:2])
    np.testing.assert_allclose(newest(), before, atol=1e-5)
    shutil.copytree(grown_version, served.folder / ".copy")
    (served.folder / ".copy").rename(served.folder / "branched" / "2")
    after = probabilities_of(grown, digit_images[:2])
    np.testing.assert_allclose(newest(), after, atol=1e-5)
    assert np.abs(after - before).max() > 0.01
