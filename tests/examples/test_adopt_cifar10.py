"""`examples/adopt_cifar10.py` on generated images in place of CIFAR-10."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import flags
from absl.testing import flagsaver

import keras_incremental as ki

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "adopt_cifar10.py"
NAMES = [str(label) for label in range(10)]  # of mocked data
PER_CLASS = 12
REAL_DATA = pathlib.Path(
    os.environ.get(
        "KERAS_INCREMENTAL_TFDS_DIR", ROOT.parent / "shared" / "data" / "tfds"
    )
)


COLOURS = np.random.default_rng(0).uniform(40, 215, (10, 3))


def scenario_of_arrays():
    """Noisy images, each class of a colour of its own."""
    labels = np.arange(10 * PER_CLASS) % 10
    noise = np.random.default_rng(1).normal(0, 9, (len(labels), 32, 32, 3))
    images = COLOURS[labels][:, None, None] + noise
    images = images.clip(0, 255).astype("uint8")
    return ki.ClassIncrementalScenario.from_arrays(
        images,
        labels,
        images,
        labels,
        classes_per_task=[6, 2, 2],
        class_order=list(range(10)),
    )


def mocked():
    """Mocks TFDS by such images."""

    def example(index):
        label = index % 10
        noise = tf.random.stateless_normal((32, 32, 3), (0, index), stddev=9.0)
        image = tf.gather(tf.constant(COLOURS, tf.float32), label) + noise
        image = tf.cast(tf.clip_by_value(image, 0, 255), "uint8")
        return {"image": tf.io.encode_png(image), "label": label}

    def as_dataset(self, *args, **kwargs):
        del self, args, kwargs
        return tf.data.Dataset.range(10 * PER_CLASS).map(example)

    return tfds.testing.mock_data(as_dataset_fn=as_dataset)


@pytest.fixture(scope="module")
def script(load):
    """The module `examples/adopt_cifar10.py`."""
    with load("adopt_cifar10") as module:
        yield module


@pytest.fixture
def parse(script, tmp_path):
    """Returns a function that parses a command line of the script."""
    del script

    def parse(*args):
        flags.FLAGS.unparse_flags()
        command = ["adopt_cifar10.py", f"--output_dir={tmp_path}/out", *args]
        return flags.FLAGS(command)

    with flagsaver.flagsaver():
        yield parse


def in_this_process(script, parse, stages):
    """Returns a stand-in for `subprocess.run` that runs a stage here."""

    def run(command):
        interpreter, path, *arguments = command
        assert interpreter == sys.executable
        assert pathlib.Path(path) == SCRIPT
        parse(*arguments)
        stages.append(flags.FLAGS["stage"].value)
        keras.backend.clear_session()
        with mocked():
            script.main(["adopt_cifar10.py"])
        return subprocess.CompletedProcess(command, 0)

    return run


TINY = [
    "--methods=analytic,eeil",
    "--samples_per_class=12",
    "--memory_size=40",
    "--batch_size=12",
    "--epochs=3",
    "--finetune_epochs=3",
    "--learning_rate=0.02",
]


@pytest.fixture(autouse=True)
def tiny(script, monkeypatch):
    """A network that is built and traced in no time, for EfficientNet-Lite0."""
    monkeypatch.setattr(script, "make_backbone", make_tiny)


def make_tiny(image_shape):
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.AveragePooling2D(8, name="stage5"),
            layers.Flatten(),
            layers.Dense(16, activation="tanh"),
        ]
    )
    return keras.Model(network.inputs[0], network.outputs[0])


def run_all(script, parse, monkeypatch, *args):
    """Runs the script, its stages in this process; returns their names."""
    stages = []
    monkeypatch.setattr(sys, "argv", parse(*args) and [str(SCRIPT), *args])
    monkeypatch.setattr(
        script.subprocess, "run", in_this_process(script, parse, stages)
    )
    script.main(["adopt_cifar10.py"])
    return stages


@pytest.mark.slow
def test_six_classes_are_adopted_and_four_learned_by_each_method(
    script, parse, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(script, "make_scenario", scenario_of_arrays)
    out, serving = tmp_path / "out", tmp_path / "serving"
    args = [f"--output_dir={out}", f"--export_dir={serving}", *TINY]
    assert run_all(script, parse, monkeypatch, *args) == [
        "train",
        *2 * ["grow"],
    ]
    printed = capsys.readouterr().out
    for name in ("analytic", "eeil"):
        report = json.loads((out / name / "report.json").read_text())
        check_report(report, exemplars=40 * (name == "eeil"))
        check_summary(printed, report)
        check_files(out / name)
        assert (serving / name / "1" / "saved_model.pb").is_file()
    assert (out / "accuracy.png").stat().st_size > 1000


def check_report(report, exemplars):
    """What can be said of any run: counts, and means that must agree."""
    adopted, first, second = report["tasks"]
    assert adopted["classes"] == NAMES[:6]
    assert first["classes"] == NAMES[6:8]
    assert second["classes"] == NAMES[8:]
    assert [entry["seen_classes"] for entry in report["tasks"]] == [6, 8, 10]
    kept = [entry["exemplars"] for entry in report["tasks"]]
    assert kept == [exemplars] * 3
    assert first["bytes"] <= second["bytes"]
    # Each class has as many test images as any other.
    for known, entry in ((6, first), (8, second)):
        old, new = entry["old_accuracy"], entry["new_accuracy"]
        whole = (known * old + 2 * new) / (known + 2)
        assert entry["accuracy"] == pytest.approx(whole)
        assert entry["per_task_accuracy"][-1] == pytest.approx(new)
    assert first["old_accuracy_before"] == adopted["accuracy"] > 1 / 6
    assert second["old_accuracy_before"] == first["accuracy"]
    assert report["final_accuracy"] == second["accuracy"]
    assert report["flags"]["memory_size"] == 40
    assert "output_dir" not in report["flags"]


def check_files(folder):
    """The grown model and its memory, as another process finds them."""
    trained = keras.models.load_model(folder.parent / "trained.keras")
    assert trained.output_shape == (None, 6)
    model = keras.models.load_model(folder / "model.keras")
    assert model.class_names == NAMES
    assert [head.stop for head in model.heads] == [6, 8, 10]
    if folder.name == "eeil":
        memory = ki.ExemplarMemory.load(folder / "memory")
        assert [len(memory.images(label)) for label in range(10)] == [4] * 10
    assert (folder / "confusion.png").stat().st_size > 1000


def check_summary(printed, report):
    """One line for what was adopted and one for each step."""
    prefix = f"{report['method']}: "
    lines = [line for line in printed.splitlines() if line.startswith(prefix)]
    assert len(lines) == 4
    assert f"{report['tasks'][0]['bytes'] / 1e6:.1f} MB" in lines[0]
    first = report["tasks"][1]
    assert "6, 7 added" in lines[1]
    assert f"{100 * first['old_accuracy_before']:.1f}% before" in lines[1]
    assert f"{100 * first['old_accuracy']:.1f}% after" in lines[1]
    assert lines[3].endswith(report["published"])


@pytest.mark.slow
@pytest.mark.skipif(
    not (REAL_DATA / "cifar10").is_dir(),
    reason=f"no prepared cifar10 in {REAL_DATA}; set "
    "KERAS_INCREMENTAL_TFDS_DIR to the data_dir that holds it",
)
def test_real_images_are_learned_in_processes_of_their_own(
    tmp_path, run_process
):
    process = run_process(
        "adopt_cifar10.py",
        f"--data_dir={REAL_DATA}",
        f"--output_dir={tmp_path / 'out'}",
        "--methods=analytic",
        "--samples_per_class=20",
        "--test_split=test[:5%]",
        CUDA_VISIBLE_DEVICES="",
    )
    assert process.returncode == 0, process.stderr
    folder = tmp_path / "out" / "analytic"
    report = json.loads((folder / "report.json").read_text())
    assert [task["seen_classes"] for task in report["tasks"]] == [6, 8, 10]
    assert report["final_accuracy"] > 0.5
    model = keras.models.load_model(folder / "model.keras")
    assert sorted(model.labels) == list(range(10))
    assert "analytic: 6 classes adopted" in process.stdout


# Mistakes, each of which is one line.


def refusal(script, *args):
    """Runs with a mistake; returns the message."""
    with pytest.raises(SystemExit) as stop:
        script.main(["adopt_cifar10.py", *args])
    (line,) = str(stop.value.code).splitlines()
    assert line.startswith("adopt_cifar10.py: ")
    return line


def test_a_used_output_folder_is_refused_before_any_training(
    script, parse, tmp_path
):
    used = tmp_path / "out" / "eeil"
    used.mkdir(parents=True)
    (used / "model.keras").write_bytes(b"")
    parse("--methods=analytic,eeil")
    assert "already holds model.keras" in refusal(script)
    assert "unknown arguments: twice" in refusal(script, "twice")


@pytest.mark.parametrize("stage", ["train", "grow"])
def test_too_small_a_memory_is_refused_before_any_training(
    stage, script, parse
):
    parse(f"--stage={stage}", "--methods=eeil", "--memory_size=9")
    with mocked():
        assert "Use capacity >= 10" in refusal(script)


def test_data_that_cannot_be_had_is_told_in_one_line(
    script, parse, monkeypatch, tmp_path
):
    def no_network(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", no_network
    )
    parse("--stage=train", f"--data_dir={tmp_path}")
    assert "no network" in refusal(script)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--methods=vgg", "Expected one or more of analytic, branched_reh"),
        ("--methods=", "Expected one or more of analytic, branched_reh"),
        ("--learning_rate=0", "Expected a number above 0"),
    ],
)
def test_a_flag_out_of_range_is_refused_when_it_is_parsed(flag, message, parse):
    with pytest.raises(flags.IllegalFlagValueError, match=message):
        parse(flag)


def test_a_failed_process_ends_the_run_without_more_words(
    script, parse, monkeypatch
):
    parse("--methods=analytic,eeil")
    commands = []

    def failing(command):
        commands.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(script.subprocess, "run", failing)
    with pytest.raises(SystemExit) as stop:
        script.main(["adopt_cifar10.py"])
    assert stop.value.code == 3
    assert len(commands) == 1
    assert commands[0][-1] == "--stage=train"
