"""The lower bounds of `setup.py` are honest: tests pass at all of them."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SETUP = ROOT / "setup.py"
EXTRAS = ("examples", "pretrained", "pytest")
# What names most of Keras and TensorFlow; and, on the pages, whole runs.
TESTS = (
    *("tests/layers", "tests/networks", "tests/objectives"),
    "tests/test_docs.py",
)


def run(*command):
    done = subprocess.run(
        [*map(str, command)],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(name="python")
def _python(tmp_path):
    """Python with the oldest version of each package that is asked for."""
    uv, environment = (sys.executable, "-m", "uv"), tmp_path / "oldest"
    run(*uv, "venv", "--python", sys.executable, environment)
    run(
        *(*uv, "pip", "install", "--python", environment),
        *("--resolution", "lowest-direct", "-r", SETUP),
        *(f"--extra={extra}" for extra in EXTRAS),
    )
    return environment / "bin" / "python"


@pytest.mark.slow
@pytest.mark.timeout(1800)  # it installs TensorFlow
def test_tests_pass_with_the_oldest_versions_of_all_packages(python):
    ask = "from importlib import metadata; print(metadata.version('keras'))"
    bound = re.search(r'"keras>=([\d.]+)"', SETUP.read_text("utf-8"))[1]
    assert run(python, "-c", ask).startswith(bound)
    passed = run(python, "-m", "pytest", "-q", "-m", "", *TESTS)
    assert " passed" in passed
