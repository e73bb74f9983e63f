"""`examples/serving_client.py` against a server, and what it says if not.

The server is `tests/export/model_server.py`, which stands in for TensorFlow
Serving.
"""

import http.server
import importlib.util
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import types
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

import keras_incremental as ki
from keras_incremental.export import publish

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "serving_client.py"
NAMES = ["cat", "dög/🐕", "two words"]
PROTOCOLS = {"grpc": [], "rest": ["--rest"]}

both_protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


def tiny(seed):
    """A classifier of 8x8 images without classes."""
    keras.utils.set_random_seed(seed)
    backbone = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(6),
        ]
    )
    return ki.IncrementalClassifier(backbone)


@pytest.fixture(scope="module")
def model():
    model = tiny(seed=0)
    model.add_classes([0, 1, 2], NAMES)
    return model


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """A folder of two versions; the second knows another class alone."""
    base = tmp_path_factory.mktemp("served") / "pets"
    publish(model, base)
    other = tiny(seed=1)
    other.add_classes([0], ["only one"])
    publish(other, base)
    return base


def load_server():
    """Returns the module `model_server.py`, which shuts Keras out."""
    path = ROOT / "tests" / "export" / "model_server.py"
    spec = importlib.util.spec_from_file_location("model_server", path)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {"keras": keras}):
        spec.loader.exec_module(module)
        loaded = dict(sys.modules)
    for name in loaded.keys() - sys.modules.keys():
        sys.modules[name] = loaded[name]
    return module


@pytest.fixture(scope="module")
def server(served):
    """Ports of a server of the two versions, in this process."""
    module = load_server()
    models = module.Models({"pets": served}, {"pets": {"stable": 1}})
    grpc, rest, ports = module.serve(models)
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    yield types.SimpleNamespace(**ports)
    rest.shutdown()
    rest.server_close()
    grpc.stop(None).wait()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A PNG and a JPEG file, of other sizes than the model's."""
    folder = tmp_path_factory.mktemp("pictures with spaces")
    random = np.random.default_rng(1)
    grey = random.integers(0, 256, (8, 8, 1), np.uint8)
    colour = random.integers(0, 256, (20, 13, 3), np.uint8)
    (folder / "a.png").write_bytes(tf.io.encode_png(grey).numpy())
    (folder / "b.jpg").write_bytes(tf.io.encode_jpeg(colour).numpy())
    return [folder / "a.png", folder / "b.jpg"]


def expected_lines(model, path):
    """What the client is to print of an 8x8 PNG file."""
    image = tf.io.decode_image(path.read_bytes(), 1)[None]
    logits = model.predict(image, verbose=0)[0].astype("float64")
    probabilities = np.exp(logits) / np.exp(logits).sum()
    best = np.argsort(-probabilities)
    return [str(path), *(f"  {probabilities[i]:.4f}  {NAMES[i]}" for i in best)]


@pytest.fixture(scope="module")
def client(load):
    """The module `examples/serving_client.py`."""
    with (
        mock.patch.dict(os.environ, {"no_proxy": "*"}),
        load("serving_client") as module,
    ):
        yield module


@pytest.fixture
def run(client, capsys):
    """Returns a function from a command line to the lines printed."""

    def run(*args):
        flags.FLAGS.unparse_flags()
        argv = flags.FLAGS(["serving_client.py", *map(str, args)])
        client.main(argv)
        return capsys.readouterr().out.splitlines()

    with flagsaver.flagsaver():
        yield run


@pytest.fixture
def fails(run):
    """Returns a function from a command line to the message it ends with."""

    def fails(*args):
        with pytest.raises(SystemExit) as caught:
            run(*args)
        message = caught.value.code
        assert message.startswith("serving_client: ")
        assert "\n" not in message
        return message

    return fails


@pytest.fixture
def ask(server):
    """Returns a function to the flags that reach the server."""

    def ask(protocol, model_name="pets"):
        port = getattr(server, protocol)
        return [
            *PROTOCOLS[protocol],
            "--host=127.0.0.1",
            f"--port={port}",
            f"--model_name={model_name}",
        ]

    return ask


@pytest.fixture
def closed_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]  # bound, but nobody listens


@pytest.mark.slow
@both_protocols
def test_names_and_probabilities_are_printed(run, ask, model, files, protocol):
    lines = run(*ask(protocol), "--version=1", *files)
    assert lines[:4] == expected_lines(model, files[0])
    assert lines[4] == str(files[1])
    assert len(lines) == 8


@pytest.mark.slow
@both_protocols
def test_the_command_asks_a_server_of_another_process(
    run_process, model, served, files, protocol
):
    script = ROOT / "tests" / "export" / "model_server.py"
    server = subprocess.Popen(
        [sys.executable, script, f"pets={served}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = json.loads(server.stdout.readline())[protocol]
        result = run_process(
            "serving_client.py",
            *PROTOCOLS[protocol],
            "--host=127.0.0.1",
            f"--port={port}",
            "--model_name=pets",
            "--version=1",
            *files,
            no_proxy="*",
            PYTHONIOENCODING="utf-8",
        )
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[:4] == expected_lines(model, files[0])
    assert lines[4] == str(files[1])
    assert len(lines) == 8


@pytest.mark.slow
def test_a_mistake_ends_the_script_without_a_traceback(run_process, files):
    args = ["--rest", "--host=127.0.0.1", "--port=1", "--model_name=pets"]
    result = run_process("serving_client.py", *args, *files, no_proxy="*")
    assert result.returncode == 1
    assert result.stderr.startswith("serving_client: No answer from 127.0.0.1")
    assert "Traceback" not in result.stderr


@both_protocols
class TestVersions:
    def test_by_label(self, run, ask, model, files, protocol):
        lines = run(*ask(protocol), "--label=stable", files[0])
        assert lines == expected_lines(model, files[0])

    def test_the_newest_by_default(self, run, ask, files, protocol):
        lines = run(*ask(protocol), files[0])
        assert lines == [str(files[0]), "  1.0000  only one"]

    def test_top(self, run, ask, model, files, protocol):
        lines = run(*ask(protocol), "--version=1", "--top=2", files[0])
        assert lines == expected_lines(model, files[0])[:3]

    def test_unknown(self, fails, ask, files, protocol):
        message = fails(*ask(protocol), "--version=9", files[0])
        assert "does not know model 'pets', version 9" in message

    def test_unknown_label(self, fails, ask, files, protocol):
        message = fails(*ask(protocol), "--label=beta", files[0])
        assert "label: beta" in message


@both_protocols
class TestErrors:
    def test_an_unknown_model(self, fails, ask, files, protocol):
        message = fails(*ask(protocol, "birds"), files[0])
        assert "The server does not know model 'birds'" in message

    def test_no_server(self, fails, closed_port, files, protocol):
        message = fails(
            *PROTOCOLS[protocol],
            "--host=127.0.0.1",
            f"--port={closed_port}",
            "--model_name=pets",
            files[0],
        )
        assert f"No answer from 127.0.0.1:{closed_port}" in message

    def test_a_file_that_is_no_image(self, fails, ask, tmp_path, protocol):
        path = tmp_path / "notes.txt"
        path.write_text("no image")
        message = fails(*ask(protocol), path)
        assert f"{path} is not a JPEG, PNG, GIF, BMP or WebP file" in message

    def test_a_damaged_image(self, fails, ask, files, tmp_path, protocol):
        path = tmp_path / "half.png"
        path.write_bytes(files[0].read_bytes()[:40])
        message = fails(*ask(protocol), path)
        assert f"{path}: The server refused" in message

    def test_a_missing_file(self, fails, ask, tmp_path, protocol):
        message = fails(*ask(protocol), tmp_path / "none.png")
        assert f"{tmp_path / 'none.png'}: No such file" in message

    def test_the_port_of_the_other_protocol(
        self, fails, server, files, protocol
    ):
        other = {"grpc": server.rest, "rest": server.grpc}[protocol]
        message = fails(
            *PROTOCOLS[protocol],
            "--host=127.0.0.1",
            f"--port={other}",
            "--model_name=pets",
            "--timeout=10",
            files[0],
        )
        assert re.search("--port", message)


@pytest.mark.parametrize(
    "answer", [b'{"predictions": [[0.5, 0.5]]}', b"{}", b"[]", b"<html>"]
)
def test_an_answer_that_is_not_of_a_published_model(fails, files, answer):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        message = fails(
            "--rest",
            "--host=127.0.0.1",
            f"--port={other.server_port}",
            "--model_name=pets",
            files[0],
        )
        other.shutdown()
    assert re.search("is not that of a published|does not speak REST", message)


def test_grpc_without_its_package(fails, files):
    with mock.patch.dict(sys.modules, {"tensorflow_serving.apis": None}):
        message = fails("--model_name=pets", files[0])
    assert "pip install tensorflow-serving-api" in message
    assert "--rest" in message


@pytest.mark.parametrize("name", ["team/pets", "pets:predict", ""])
def test_a_model_name_that_no_server_has(run, files, name):
    with pytest.raises(flags.IllegalFlagValueError, match="without slash"):
        run(f"--model_name={name}", files[0])


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--model_name=pets", "--version=1", "--label=stable"],
        ["--model_name=pets", "--label=a/b"],
        ["--model_name=pets", "--version=0"],
        ["--model_name=pets", "--top=0"],
    ],
)
def test_flags_that_do_not_fit(run, files, args):
    with pytest.raises(flags.IllegalFlagValueError):
        run(*args, files[0])


def test_no_files(client, run):
    with pytest.raises(client.app.UsageError, match="image file"):
        run("--model_name=pets")


@pytest.mark.parametrize(
    ("args", "address"),
    [([], "127.0.0.1:8500"), (["--rest"], "127.0.0.1:8501")],
)
def test_the_usual_ports(client, run, files, args, address):
    kind = "RestClient" if args else "GrpcClient"
    with mock.patch.object(client, kind) as made:
        made.return_value.ask.return_value = (["cat"], [1.0])
        run("--model_name=pets", "--host=127.0.0.1", *args, files[0])
    made.assert_called_once_with(address)
