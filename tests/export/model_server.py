"""A stand-in for TensorFlow Serving, for tests.

    python tests/export/model_server.py cat_model=serving/cat_model \
        --label=cat_model:stable=1

It loads versions as the server does (TensorFlow alone, Keras cannot even be
imported; tag `serve`, a session, tensors by the names in the signatures) and
speaks the server's protocol, as its documentation and its .proto files say:
gRPC (Predict, Classify, GetModelStatus) and REST (predict, classify, status).
The folder is looked at at every request, so a new version is served at once.
On standard output it writes one line, {"grpc": port, "rest": port}.
"""

import sys

sys.modules["keras"] = None  # Any import of Keras fails from here on.

# ruff: noqa: E402  (it has to fail in what is imported here as well)

import argparse
import base64
import collections
import concurrent.futures
import http.server
import json
import pathlib
import re
import threading

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)"
    r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
    r"(?::(?P<method>classify|predict))?"
)
HTTP_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
}


class Refused(Exception):
    """A request that the server answers with an error.

    Attributes:
        code: a `grpc.StatusCode`.
    """

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def invalid(message):
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


class Version:
    """One loaded version of a model."""

    def __init__(self, folder):
        graph = tf.Graph()
        self.session = tf.compat.v1.Session(graph=graph)
        with graph.as_default():
            self.meta_graph = tf.compat.v1.saved_model.load(
                self.session, ["serve"], str(folder)
            )

    def signature(self, name):
        name = name or "serving_default"
        if name not in self.meta_graph.signature_def:
            raise invalid(f'Serving signature key "{name}" not found.')
        return self.meta_graph.signature_def[name]

    def run(self, signature, inputs):
        """Returns the outputs by name, of inputs by name."""
        if set(inputs) != set(signature.inputs):
            raise invalid(
                f"input keys {sorted(inputs)}, expected "
                f"{sorted(signature.inputs)}"
            )
        names = {key: info.name for key, info in signature.outputs.items()}
        feed = {signature.inputs[key].name: inputs[key] for key in inputs}
        try:
            return self.session.run(names, feed)
        except (tf.errors.OpError, ValueError) as error:
            raise invalid(str(error).splitlines()[0]) from error

    def classify(self, signature_name, examples):
        """Returns a list of (label, score) for each serialized example.

        The checks are those of the server: `SignatureDef`s for Classify have
        one input, `inputs`, and `classes`, `scores` or both.
        """
        signature = self.signature(signature_name)
        if signature.method_name != "tensorflow/serving/classify":
            raise invalid(
                "Expected classification signature method_name to be "
                f"tensorflow/serving/classify. Was: {signature.method_name}"
            )
        outputs = set(signature.outputs)
        if not outputs or not outputs <= {"classes", "scores"}:
            raise invalid(f"Expected one or two output Tensors, got {outputs}")
        results = self.run(signature, {"inputs": examples})
        return [
            [*zip(labels, scores.tolist(), strict=True)]
            for labels, scores in zip(
                results["classes"], results["scores"], strict=True
            )
        ]


class Models:
    """The models served, by name, with the versions on disk."""

    def __init__(self, bases, labels):
        self._bases, self._labels = bases, labels
        self._loaded, self._lock = {}, threading.Lock()

    def numbers(self, name):
        if name not in self._bases:
            raise Refused(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: Latest({name})",
            )
        names = [path.name for path in self._bases[name].iterdir()]
        return sorted(int(n) for n in names if re.fullmatch(r"-?\d+", n))

    def get(self, name, number=None, label=None):
        """Returns the wanted version, by default the newest, and its number."""
        numbers = self.numbers(name)
        if label:
            if label not in self._labels[name]:
                raise invalid(f"Unrecognized servable version label: {label}")
            number = self._labels[name][label]
        number = numbers[-1] if number is None else number
        if number not in numbers:
            raise Refused(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: Specific({name}, {number})",
            )
        with self._lock:
            if (name, number) not in self._loaded:
                folder = self._bases[name] / str(number)
                self._loaded[name, number] = Version(folder)
            return self._loaded[name, number], number

    def get_by_spec(self, spec):
        number = spec.version.value if spec.HasField("version") else None
        return self.get(spec.name, number, spec.version_label)


def answering(method):
    """Turns a refusal into gRPC's error."""

    def answer(self, request, context):
        try:
            return method(self, request)
        except Refused as error:
            return context.abort(error.code, str(error))

    return answer


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """gRPC: Predict and Classify."""

    def __init__(self, models):
        self._models = models

    @answering
    def Predict(self, request):
        version, number = self._models.get_by_spec(request.model_spec)
        signature = version.signature(request.model_spec.signature_name)
        inputs = {
            key: tf.make_ndarray(value) for key, value in request.inputs.items()
        }
        response = predict_pb2.PredictResponse()
        for key, value in version.run(signature, inputs).items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        fill_spec(response.model_spec, request.model_spec, number)
        return response

    @answering
    def Classify(self, request):
        version, number = self._models.get_by_spec(request.model_spec)
        examples = [
            example.SerializeToString()
            for example in request.input.example_list.examples
        ]
        response = classification_pb2.ClassificationResponse()
        signature_name = request.model_spec.signature_name
        for row in version.classify(signature_name, examples):
            classes = response.result.classifications.add().classes
            for label, score in row:
                classes.add(label=label.decode(), score=score)
        fill_spec(response.model_spec, request.model_spec, number)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """gRPC: GetModelStatus."""

    def __init__(self, models):
        self._models = models

    @answering
    def GetModelStatus(self, request):
        response = get_model_status_pb2.GetModelStatusResponse()
        for number in self._models.numbers(request.model_spec.name):
            response.model_version_status.add(
                version=number,
                state=get_model_status_pb2.ModelVersionStatus.AVAILABLE,
            )
        return response


def fill_spec(spec, asked, number):
    spec.name = asked.name
    spec.version.value = number
    spec.signature_name = asked.signature_name or "serving_default"


def rest_handler(models):
    """Returns the class that answers REST requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self._answer(None)

        def do_POST(self):
            length = int(self.headers["Content-Length"])
            self._answer(self.rfile.read(length))

        def log_message(self, *args):
            pass

        def _answer(self, body):
            try:
                code, result = 200, self._result(body)
            except Refused as error:
                code = HTTP_CODES[error.code]
                result = {"error": str(error)}
            data = json.dumps(result).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _result(self, body):
            match = PATH.fullmatch(self.path)
            if not match or (body is None) != (match["method"] is None):
                raise invalid(f"Malformed request: {self.path}")
            if body is None:
                return status(models.numbers(match["name"]))
            number = match["version"] and int(match["version"])
            version, _ = models.get(match["name"], number, match["label"])
            request = json.loads(body)
            if match["method"] == "classify":
                return classify_json(version, request)
            return predict_json(version, request)

    return Handler


def status(numbers):
    return {
        "model_version_status": [
            {
                "version": str(number),
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
            for number in numbers
        ]
    }


def predict_json(version, request):
    """Answers `instances` by rows and `inputs` by columns."""
    signature = version.signature(request.get("signature_name"))
    by_rows = "instances" in request
    if by_rows:
        inputs = from_rows(request["instances"], [*signature.inputs])
    else:
        inputs = request["inputs"]
        if not isinstance(inputs, dict) or "b64" in inputs:
            inputs = {next(iter(signature.inputs)): inputs}
    tensors = {
        key: as_tensor(value, signature.inputs[key])
        for key, value in inputs.items()
        if key in signature.inputs
    }
    outputs = version.run(signature, tensors)
    columns = {key: as_json(value) for key, value in outputs.items()}
    if not by_rows:
        return {"outputs": columns}
    rows = zip(*columns.values(), strict=True)
    return {
        "predictions": [dict(zip(columns, row, strict=True)) for row in rows]
    }


def from_rows(rows, keys):
    columns = collections.defaultdict(list)
    for row in rows:
        named = isinstance(row, dict) and "b64" not in row
        for key, value in (row if named else {keys[0]: row}).items():
            columns[key].append(value)
    return columns


def classify_json(version, request):
    examples = [as_example(item) for item in request["examples"]]
    rows = version.classify(request.get("signature_name"), examples)
    return {
        "results": [
            [[label.decode(), score] for label, score in row] for row in rows
        ]
    }


def as_example(features):
    example = tf.train.Example()
    for name, value in features.items():
        values = example.features.feature[name].bytes_list.value
        values.append(as_bytes(value))
    return example.SerializeToString()


def as_tensor(value, info):
    """Returns nested lists as an array of the type that is expected."""
    dtype = tf.dtypes.as_dtype(info.dtype)
    try:
        if dtype == tf.string:
            return np.array([as_bytes(item) for item in value], object)
        return np.array(value, dtype.as_numpy_dtype)
    except (TypeError, ValueError) as error:
        raise invalid(f"JSON Value is not of type {dtype.name}") from error


def as_bytes(value):
    """Returns the bytes of a JSON string, or of {"b64": ...}."""
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode()


def as_json(array):
    if array.dtype == object:
        return [[item.decode() for item in row] for row in array]
    return array.tolist()


def serve(models):
    """Starts both servers; returns their ports."""
    workers = concurrent.futures.ThreadPoolExecutor(4)
    server = grpc.server(workers)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(models), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelService(models), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    rest = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), rest_handler(models)
    )
    return server, rest, {"grpc": port, "rest": rest.server_port}


def parsed_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+", help="NAME=FOLDER")
    parser.add_argument(
        "--label", action="append", default=[], help="NAME:LABEL=VERSION"
    )
    arguments = parser.parse_args()
    bases = dict(item.split("=", 1) for item in arguments.models)
    labels = {name: {} for name in bases}
    for item in arguments.label:
        name, label, version = re.fullmatch(r"(.+):(.+)=(\d+)", item).groups()
        labels[name][label] = int(version)
    return {name: pathlib.Path(base) for name, base in bases.items()}, labels


def main():
    server, rest, ports = serve(Models(*parsed_arguments()))
    print(json.dumps(ports), flush=True)
    rest.serve_forever()
    server.stop(None)


if __name__ == "__main__":
    main()
