"""Asks a model server what is in image files.

    python examples/serving_client.py --model_name=my_model cat.jpg dog.png

    python examples/serving_client.py --rest --host=models.example.org \
        --model_name=my_model --label=canary --top=3 photos/*.jpg

It prints the names of the most probable classes, with their probabilities. The
files are sent as they are, to a version that `keras_incremental.export.publish`
wrote. By default it speaks gRPC, which needs `pip install
tensorflow-serving-api`; with --rest it needs nothing but Python and absl.
"""

import base64
import http.client
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

# TensorFlow, which gRPC needs for its tensors, is to keep to itself.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags

SIGNATURE = "serving_bytes"
GRPC_PORT, REST_PORT = 8500, 8501
# What JPEG, PNG, GIF, BMP and WebP files begin with.
IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF")

_HOST = flags.DEFINE_string("host", "localhost", "Of the server.")
_PORT = flags.DEFINE_integer(
    "port",
    None,
    f"Of the server; by default {GRPC_PORT}, or {REST_PORT} with --rest.",
    lower_bound=1,
    upper_bound=65535,
)
_REST = flags.DEFINE_bool("rest", False, "Speak REST instead of gRPC.")
_MODEL_NAME = flags.DEFINE_string(
    "model_name", None, "The name that the server knows the model by."
)
_VERSION = flags.DEFINE_integer(
    "version", None, "The version to ask; by default the newest.", lower_bound=1
)
_LABEL = flags.DEFINE_string(
    "label", None, "The label of the version to ask: stable, canary, ..."
)
_TOP = flags.DEFINE_integer("top", 5, "Classes to print.", lower_bound=1)
_TIMEOUT = flags.DEFINE_float(
    "timeout", 30.0, "Seconds to wait for an answer.", lower_bound=0.001
)

flags.mark_flag_as_required("model_name")
flags.mark_flags_as_mutual_exclusive(["version", "label"])


@flags.validator(
    "model_name", "must be a name without slash or colon, as on the server"
)
def _is_model_name(name):
    return name is None or (name != "" and not set(name) & set("/:"))


@flags.validator("label", "must be a label without slash or colon")
def _is_label(label):
    return label is None or (label != "" and not set(label) & set("/:"))


class ClientError(Exception):
    """What goes wrong, in one line for the user."""


class Refused(ClientError):
    """The server is there, but does not take this image."""


def read_image(path):
    """Returns the bytes of an image file."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}.") from error
    if not data.startswith(IMAGE_STARTS):
        raise ClientError(f"{path} is not a JPEG, PNG, GIF, BMP or WebP file.")
    return data


class RestClient:
    """Asks by HTTP and JSON."""

    def __init__(self, address):
        self._address = address
        name = urllib.parse.quote(_MODEL_NAME.value, safe="")
        self._url = f"http://{address}/v1/models/{name}"
        if _VERSION.value:
            self._url += f"/versions/{_VERSION.value}"
        elif _LABEL.value:
            self._url += f"/labels/{urllib.parse.quote(_LABEL.value, safe='')}"

    def ask(self, image):
        """Returns the class names, best first, and all probabilities.

        Returns:
            `(names, probabilities)`, both best first.
        """
        body = {
            "signature_name": SIGNATURE,
            "instances": [{"b64": base64.b64encode(image).decode()}],
        }
        answer = self._post(json.dumps(body).encode())
        try:
            (outputs,) = answer["predictions"]
            return ranking(
                outputs["classes"],
                outputs["class_ids"],
                outputs["probabilities"],
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ClientError(
                f"The answer of {self._address} is not that of a published "
                "keras_incremental model."
            ) from error

    def _post(self, body):
        request = urllib.request.Request(
            f"{self._url}:predict",
            body,
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(
                request, timeout=_TIMEOUT.value
            ) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise refusal(error.code == 404, _json_error(error)) from error
        except OSError as error:  # URLError and TimeoutError are such
            reason = getattr(error, "reason", error)
            raise unreachable(self._address, reason) from error
        except (http.client.HTTPException, ValueError) as error:
            raise ClientError(
                f"{self._address} does not speak REST. Pass --port, the "
                "server's --rest_api_port."
            ) from error


class GrpcClient:
    """Asks by gRPC."""

    def __init__(self, address):
        try:
            import grpc
            import tensorflow as tf
            from tensorflow_serving.apis import (
                predict_pb2,
                prediction_service_pb2_grpc,
            )
        except ImportError as error:
            raise ClientError(
                f"gRPC needs {error.name}: pip install tensorflow-serving-api. "
                "Or pass --rest."
            ) from error
        self._address, self._grpc, self._tf = address, grpc, tf
        self._new_request = predict_pb2.PredictRequest
        self._service = prediction_service_pb2_grpc.PredictionServiceStub(
            grpc.insecure_channel(address)
        )

    def ask(self, image):
        """As of `RestClient`."""
        request = self._new_request()
        spec = request.model_spec
        spec.name, spec.signature_name = _MODEL_NAME.value, SIGNATURE
        if _VERSION.value:
            spec.version.value = _VERSION.value
        elif _LABEL.value:
            spec.version_label = _LABEL.value
        request.inputs["image_bytes"].CopyFrom(
            self._tf.make_tensor_proto([image])
        )
        outputs = self._predict(request).outputs
        missing = {"classes", "class_ids", "probabilities"} - set(outputs)
        if missing:
            raise ClientError(
                f"The answer of {self._address} is not that of a published "
                "keras_incremental model."
            )
        classes, class_ids, probabilities = (
            self._tf.make_ndarray(outputs[key])[0].tolist()
            for key in ("classes", "class_ids", "probabilities")
        )
        names = [name.decode("utf-8") for name in classes]
        return ranking(names, class_ids, probabilities)

    def _predict(self, request):
        try:
            return self._service.Predict(request, timeout=_TIMEOUT.value)
        except self._grpc.RpcError as error:
            code, status = error.code(), self._grpc.StatusCode
            if code in (status.UNAVAILABLE, status.DEADLINE_EXCEEDED):
                raise unreachable(self._address, error.details()) from error
            unknown = code == status.NOT_FOUND
            raise refusal(unknown, error.details()) from error


def ranking(names, class_ids, probabilities):
    """Returns names and probabilities, both best first."""
    return names, [probabilities[index] for index in class_ids]


def unreachable(address, reason):
    return ClientError(
        f"No answer from {address}: {_one_line(reason)}. Is the server "
        "running, and are --host and --port right?"
    )


def refusal(unknown, message):
    if unknown:
        which = _VERSION.value or _LABEL.value
        version = f", version {which}" if which else ""
        return ClientError(
            f"The server does not know model {_MODEL_NAME.value!r}{version}: "
            f"{_one_line(message)}"
        )
    return Refused(f"The server refused: {_one_line(message)}")


def _json_error(error):
    """Returns the message of the server, if it sent one as JSON."""
    body = error.read()
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code} {error.reason}"


def _one_line(message):
    return " ".join(str(message).split())


def describe(path, names, probabilities):
    """Returns the lines to print of one file."""
    best = list(zip(names, probabilities, strict=True))[: _TOP.value]
    return "\n".join(
        [path, *(f"  {value:.4f}  {name}" for name, value in best)]
    )


def main(argv):
    paths = argv[1:]
    if not paths:
        raise app.UsageError("Name one image file or more.")
    port = _PORT.value or (REST_PORT if _REST.value else GRPC_PORT)
    address = f"{_HOST.value}:{port}"
    try:
        client = (RestClient if _REST.value else GrpcClient)(address)
        for path in paths:
            print(describe(path, *client.ask(read_image(path))))
    except Refused as error:
        sys.exit(f"serving_client: {path}: {error}")
    except ClientError as error:
        sys.exit(f"serving_client: {error}")


if __name__ == "__main__":
    app.run(main)
