"""The web page of docs/demo names what a photo and a camera show.

In a headless Chromium. Skipped where there is none, or where `npm install` has
not been run in docs/demo.
"""

import functools
import http.server
import json
import pathlib
import queue
import shutil
import subprocess
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki

DEMO = pathlib.Path(__file__).parents[2] / "docs" / "demo"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# What docs/edge.md says that the page reads of node_modules.
RUNTIME = pathlib.Path("node_modules", "onnxruntime-web", "dist")
RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
NAMES = ["red <b>", "green", "blue"]
# Waits for names, and posts what the page shows to the test.
REPORT = """
const wait = async (found) => {
  while (!found()) await new Promise((done) => setTimeout(done, 50));
};
const text = (id) => document.getElementById(id).textContent;
const report = () => fetch("/result", {
  method: "POST",
  body: JSON.stringify({
    status: text("status"),
    names: [...document.querySelectorAll("#names li")].map((item) =>
      [...item.querySelectorAll("span")].map((span) => span.textContent)),
    hidden: [...document.querySelectorAll("#drop [hidden]")].map((e) => e.id),
  }),
});
"""
DROP = """
await wait(() => text("status").startsWith("Knows"));
const bytes = await (await fetch("photo.png")).blob();
const files = new DataTransfer();
files.items.add(new File([bytes], "photo.png", { type: "image/png" }));
document.getElementById("drop").dispatchEvent(
  new DragEvent("drop", { dataTransfer: files, bubbles: true }));
await wait(() => text("names"));
await report();
"""
CAMERA = """
await wait(() => text("status").startsWith("Knows"));
document.getElementById("start").click();
await wait(() => text("names"));
await report();
"""
STATUS = """
await wait(() => !text("status").startsWith("Loading"));
await report();
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.skipif(
        not (DEMO / "node_modules").exists(),
        reason="needs npm install in docs/demo",
    ),
]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the page, with a script of the test's at its end."""

    script, results = "", queue.Queue()

    def do_GET(self):
        if self.path != "/test.html":
            return super().do_GET()
        page = pathlib.Path(self.directory, "index.html").read_text()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        script = f'<script type="module">{REPORT}{self.script}</script>'
        self.wfile.write((page + script).encode())

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        self.results.put(json.loads(self.rfile.read(size)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def page(tmp_path):
    """Returns a copy of the page's folder, to which a model is exported."""
    folder = tmp_path / "demo"
    (folder / RUNTIME).mkdir(parents=True)
    for file in (
        "index.html",
        "demo.js",
        *map(RUNTIME.joinpath, RUNTIME_FILES),
    ):
        shutil.copy(DEMO / file, folder / file)
    return folder


@pytest.fixture
def shown(page, tmp_path):
    """Returns a function that runs a script on the page, in a browser."""
    server, process = None, None

    def show(script):
        nonlocal server, process
        kind = type("WithScript", (Handler,), {"script": script})
        server = http.server.ThreadingHTTPServer(
            ("localhost", 0), functools.partial(kind, directory=str(page))
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--remote-debugging-port=0",
                f"http://localhost:{server.server_port}/test.html",
            ],
            stderr=subprocess.DEVNULL,
        )
        return kind.results.get(timeout=180)

    yield show
    process.terminate()
    process.wait(30)
    server.shutdown()
    server.server_close()


def export(folder, channels, size=16):
    """Exports a model that goes by the mean colour; returns it."""
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [
            keras.Input((size, size, channels)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, activation="relu"),
        ]
    )
    model = ki.IncrementalClassifier(backbone)
    model.add_classes([0, 1, 2], NAMES)
    kernel = np.random.default_rng(0).normal(0, 3, (8, 3))
    model.network.head.set_head_weights(0, kernel, np.zeros(3))
    model.export(folder / "model.onnx", format="onnx", verbose=False)
    (folder / "labels.json").write_text(json.dumps(model.class_names))
    return model


def photo(folder, height=16, width=16):
    """Writes a photo; returns it, `(height, width, 3)` uint8."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack(
        [rows * 255 // height, columns * 255 // width, 90 + 0 * rows], -1
    ).astype("uint8")
    (folder / "photo.png").write_bytes(tf.io.encode_png(pixels).numpy())
    return pixels


def ranked(model, image):
    """Returns names and probabilities, best first."""
    logits = model.predict(image[np.newaxis], verbose=0)[0]
    shares = tf.nn.softmax(logits).numpy()
    return [(NAMES[unit], shares[unit]) for unit in np.argsort(-shares)]


def check(result, expected, atol):
    assert [name for name, _ in result["names"]] == [n for n, _ in expected]
    shares = [float(text.removesuffix(" %")) for _, text in result["names"]]
    np.testing.assert_allclose(
        shares, [100 * p for _, p in expected], atol=atol
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_dropped_photo_is_named_as_by_the_model(page, shown, channels):
    model, image = export(page, channels), photo(page)
    result = shown(DROP)
    if channels == 1:
        image = tf.image.rgb_to_grayscale(image).numpy()
    check(result, ranked(model, image), atol=0.3)
    assert result["status"] == "photo.png"
    assert result["hidden"] == ["hint", "camera"]


def test_a_larger_photo_is_cropped_at_its_centre_as_in_training(page, shown):
    model, image = export(page, 3), photo(page, 40, 64)
    centre = tf.image.resize(image[:, 12:52], (16, 16), "area").numpy()
    check(shown(DROP), ranked(model, centre), atol=0.5)


def test_the_camera_is_named(page, shown):
    export(page, 3)
    result = shown(CAMERA)
    assert sorted(name for name, _ in result["names"]) == sorted(NAMES)
    assert result["status"] == "Camera"
    assert result["hidden"] == ["hint", "photo"]


def test_a_missing_model_is_named(page, shown):
    export(page, 3)
    (page / "model.onnx").unlink()
    assert shown(STATUS)["status"] == "There is no model.onnx beside this page."


def test_labels_of_another_model_are_refused(page, shown):
    export(page, 3)
    (page / "labels.json").write_text(json.dumps(["cat", "dog"]))
    assert shown(STATUS)["status"] == (
        "labels.json has 2 names, and the model 3 classes."
    )
