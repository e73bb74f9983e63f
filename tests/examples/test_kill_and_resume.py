"""A short run of the harness that kills and resumes; see the harness."""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.mark.slow
def test_a_killed_run_ends_like_one_that_was_not():
    result = subprocess.run(
        [
            sys.executable,
            str(HERE / "kill_and_resume.py"),
            "--kills=3",
            "--epochs=2",
            "--finetune_epochs=2",
        ],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 kills" in result.stdout
    assert "differences: none" in result.stdout
