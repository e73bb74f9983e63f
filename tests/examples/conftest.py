"""What the tests of the example scripts share."""

import contextlib
import functools
import importlib
import io
import os
import pathlib
import subprocess
import sys
from unittest import mock

import keras
import pytest
from absl import flags
from absl.testing import flagsaver

import keras_incremental as ki

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@contextlib.contextmanager
def loaded(name):
    """Imports a script; its flags, and what it imports here, go with it."""
    flags_before, modules_before = set(flags.FLAGS), set(sys.modules)
    path = [str(EXAMPLES), *sys.path]
    with mock.patch.dict(os.environ), mock.patch.object(sys, "path", path):
        yield importlib.import_module(name)
    for flag in set(flags.FLAGS) - flags_before:
        delattr(flags.FLAGS, flag)
    for module in set(sys.modules) - modules_before:
        if (EXAMPLES / f"{module}.py").is_file():
            del sys.modules[module]


# What results.json holds, by the contract.
RESULT_KEYS = {
    "dataset",
    "method",
    "seed",
    "class_order",
    "flags",
    "tasks",
    "accuracy_matrix",
    "average_incremental_accuracy",
    "average_incremental_accuracy_after_first",
    "final_accuracy",
    "forgetting",
    "backward_transfer",
    "train_function_traces",
}
TASK_KEYS = {
    "task",
    "classes",
    "seen_classes",
    "accuracy",
    "top5_accuracy",
    "per_task_accuracy",
    "exemplars",
    "train_seconds",
    "overhead_seconds",
}


@pytest.fixture(scope="session")
def check_contract():
    """Returns a function that refuses results without the contract's keys."""

    def check(results):
        assert results.keys() >= RESULT_KEYS
        for task in results["tasks"]:
            assert task.keys() >= TASK_KEYS

    return check


@pytest.fixture(scope="session")
def load():
    """The context manager that imports a script by its name."""
    return loaded


@pytest.fixture(scope="module", autouse=True)
def coarse_pictures():
    """Pictures of few pixels are quick to write."""
    with mock.patch.object(ki.reports.plots, "DPI", 60):
        yield


@pytest.fixture(scope="module")
def train():
    """The module `examples/train.py`, which reads the digits once."""
    digits = functools.cache(ki.scenarios.load_digits)
    with (
        loaded("train") as module,
        mock.patch.object(ki.scenarios, "load_digits", digits),
    ):
        yield module


def tiny(input_shape, kernel_regularizer):
    """A network with the layer names of `ki.backbones.small`."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Flatten(),
            layers.Dense(6, activation="relu", name="stage1"),
            layers.Dense(5, activation="relu", name="stage2"),
            layers.Dense(
                4,
                activation="relu",
                kernel_regularizer=kernel_regularizer,
                name="stage3",
            ),
        ]
    )


@pytest.fixture(scope="module")
def small_is_tiny(train):
    """Lets `--backbone=small` be a network that is traced in no time."""
    with mock.patch.dict(train.BACKBONES, small=tiny):
        yield


@pytest.fixture(scope="module")
def published():
    """Replaces `ki.export.publish`; returns what is published, in order."""
    models = []

    def publish(model, base, report=None):
        version = pathlib.Path(base, str(len(models) + 1))
        version.mkdir(parents=True)
        models.append(model)
        return version

    with mock.patch.object(ki.export, "publish", publish):
        yield models


@pytest.fixture(scope="module")
def sharing_search(train):
    """The module `examples/sharing_search.py`, on top of `train`."""
    del train
    with loaded("sharing_search") as module:
        yield module


@pytest.fixture(scope="session")
def run_main():
    """Returns a function that runs a script's `main` in this process.

    From the script's module and a command line to what it printed.
    """

    def run_main(script, *args):
        printed = io.StringIO()
        with flagsaver.flagsaver(), contextlib.redirect_stdout(printed):
            flags.FLAGS.unparse_flags()
            script.main(flags.FLAGS([f"{script.__name__}.py", *args]))
        return printed.getvalue()

    return run_main


@pytest.fixture(scope="session")
def run_process():
    """Returns a function that runs a script in a process of its own."""

    def run_process(name, *args, timeout=500, **env):
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, str(EXAMPLES / name), *map(str, args)],
            env={**os.environ, "PYTHONPATH": path, **env},
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
        )

    return run_process


@pytest.fixture
def parse(train, tmp_path):
    """Returns a function that parses a command line of `train.py`.

    The output folder is `tmp_path / "out"` unless the arguments name one.
    """
    del train

    def parse(*args):
        flags.FLAGS.unparse_flags()
        command = ["train.py", f"--output_dir={tmp_path / 'out'}", *args]
        return flags.FLAGS(command)

    with flagsaver.flagsaver():
        yield parse
