"""Every benchmark runs at a small size, so that none rots.

What needs PyTorch is skipped where it is not installed, as in CI.
"""

import contextlib
import importlib.util
import io
import json
import os
import pathlib
import re
import runpy
import subprocess
import sys
from unittest import mock

import keras
import pytest
from absl import flags

ROOT = pathlib.Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
HAS_PYTORCH = importlib.util.find_spec("torch") is not None


def run(name, *arguments):
    """Runs a script in this process, which has imported TensorFlow already."""
    known, printed, path = set(flags.FLAGS), io.StringIO(), BENCHMARKS / name
    with (
        mock.patch.object(sys, "argv", [str(path), *arguments]),
        # OpenVINO sends its telemetry from forks of this process, but for CI.
        mock.patch.dict(os.environ, PYTHONPATH=str(ROOT), CI="true"),
        contextlib.redirect_stdout(printed),
        pytest.raises(SystemExit) as end,
    ):
        try:
            runpy.run_path(str(path), run_name="__main__")
        finally:
            for flag in set(flags.FLAGS) - known:
                delattr(flags.FLAGS, flag)
            keras.config.set_dtype_policy("float32")
    assert not end.value.code
    return printed.getvalue()


def run_alone(name, *arguments, input=None):
    """Runs a script in a process of its own."""
    result = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        input=input,
    )
    return result.stdout


def test_every_benchmark_is_in_the_table_and_in_this_file():
    names = {path.name for path in BENCHMARKS.glob("*.py")}
    table = (BENCHMARKS / "README.md").read_text()
    tests = pathlib.Path(__file__).read_text()
    assert names
    assert all(f"`python benchmarks/{name}" in table for name in names)
    assert all(f'"{name}"' in tests for name in names)


@pytest.mark.slow
@pytest.mark.timed
def test_herding_is_far_faster_than_loops():
    output = run_alone(
        "herding.py",
        "--features=16",
        "--loop_samples=150",
        "--loop_chosen=100",
        "--samples=100,200",
        "--chosen=10,20",
        "--runs=3",
    )
    assert float(re.search(r"ratio (\d+)", output)[1]) > 10
    assert len(re.findall(r"growth exponent -?[\d.]+", output)) == 2


@pytest.mark.slow
def test_every_storage_of_a_memory_is_compared():
    output = run(
        "memory.py",
        "--exemplars=40",
        "--image_size=16",
        "--storages=raw,jpeg,disk",
        "--networks=small",
        "--batch_size=8",
        "--batches=2",
        "--steps=2",
        "--turns=1",
    )
    assert len(re.findall(r"peak RSS \d+ MB before", output)) == 3
    ratios = re.findall(r"time over raw ratio ([\d.]+)", output)
    assert len(ratios) == 6 and ratios[:2] == ["1.00", "1.00"]


@pytest.mark.slow
def test_growth_needs_two_traces_at_most():
    output = run(
        "growth.py", "--tasks=12", "--per_class=4", "--rebuilt_tasks=3"
    )
    traces = re.search(r"traces: (\d+) .* (\d+) of the test", output)
    assert int(traces[1]) <= 2 and int(traces[2]) <= 2


@pytest.mark.slow
@pytest.mark.timed
def test_a_branch_costs_less_than_the_whole_network():
    output = run_alone(
        "sharing.py",
        "--images=64",
        "--batch_size=32",
        "--epochs=3",
        "--points=0,0.75",
    )
    whole, branch = map(float, re.findall(r"ratio ([\d.]+)", output))
    assert whole == 1 and branch < 1


@pytest.mark.slow
def test_batch_statistics_are_compared():
    output = run(
        "batch_statistics.py",
        "--epochs=1",
        "--finetune_epochs=1",
        "--samples_per_class=10",
        "--momenta=0.9",
        "--seeds=1",
    )
    rows = re.findall(r"^(\w+) +0.9 +(True|False) .* s$", output, re.M)
    assert rows == [
        (method, measured)
        for method in ("EEIL", "PartialSharing")
        for measured in ("False", "True")
    ]


@pytest.mark.slow
def test_branches_need_two_traces():
    output = run(
        "branches.py",
        "--backbone=small",
        "--tasks=4",
        "--per_class=2",
        "--repeats=1",
    )
    assert re.search(r"traces: (\d+)", output)[1] == "2"


@pytest.mark.slow
def test_epochs_of_branched_rehearsal_are_compared():
    output = run(
        "branched_rehearsal.py",
        "--backbone=small",
        "--tasks=3",
        "--per_class=8",
        "--memory=8",
        "--epochs=2",
        "--batch_size=8",
    )
    assert float(re.search(r"task 3 to task 2: ([\d.]+)", output)[1]) > 0


@pytest.mark.slow
def test_the_train_step_is_timed_in_all_its_kinds():
    output = run(
        "train_step.py",
        "--backbone=small",
        "--batch_size=4",
        "--steps=2",
        "--dtype_policy=mixed_bfloat16",
        "--jit",
    )
    assert re.search(r"jit_compile=True: .*ratio [\d.]+", output)
    ratios = [float(ratio) for ratio in re.findall(r"ratio ([\d.]+)", output)]
    assert ratios[0] == 1 and len(ratios) == 6 and min(ratios) > 0


@pytest.mark.slow
def test_an_epoch_is_timed_against_its_bare_step():
    output = run(
        "against_pytorch.py",
        "--blocks=3",
        "--batch_size=4",
        "--images=12",
        "--steps=2",
        "--epochs=1",
        "--workers=0",
    )
    assert float(re.search(r"bare step: ratio ([\d.]+)", output)[1]) > 0
    compared = re.findall(r"PyTorch \d+, ratio ([\d.]+)", output)
    assert len(compared) == (2 if HAS_PYTORCH else 0)
    assert all(float(ratio) > 0 for ratio in compared)


@pytest.mark.skipif(not HAS_PYTORCH, reason="needs PyTorch")
@pytest.mark.slow
def test_the_pytorch_loop_answers_each_line_with_seconds():
    sizes = ["--blocks=1", "--batch_size=4", "--images=8", "--workers=0"]
    output = run_alone("pytorch_loop.py", *sizes, input="step\nepoch\n")
    version, *seconds = output.split()
    assert version[0].isdigit()
    assert len(seconds) == 2 and min(map(float, seconds)) > 0


@pytest.mark.slow
def test_serving_is_timed_for_branches_and_classes():
    output = run(
        "serving.py",
        "--backbone=small",
        "--branches=1,2",
        "--classes=10",
        "--requests=2",
    )
    assert re.findall(r"(\d+) (?:branches|classes):", output) == [
        "1",
        "2",
        "10",
    ]


@pytest.mark.slow
def test_every_format_of_the_edge_is_measured():
    output = run(
        "edge.py",
        "--runs=small:eeil",
        "--epochs=2",
        "--train=200",
        "--test=40",
        "--turns=3",
    )
    names = re.findall(r"  (.+): \d+ kB, accuracy [\d.]+", output)
    assert names == [
        "LiteRT",
        "LiteRT int8",
        "LiteRT int8 weights",
        "ONNX Runtime",
        "OpenVINO",
    ]
    assert "ratio 1.00" in output


@pytest.mark.slow
def test_grouped_branches_compute_what_single_ones_do():
    output = run(
        "grouped_branches.py",
        "--backbone=resnet20",
        "--branches=2",
        "--batch_sizes=1,3",
        "--runs=2",
    )
    differences = re.findall(r"logits differ by ([\d.e+-]+)", output)
    assert len(differences) == 2
    assert max(map(float, differences)) < 1e-3


@pytest.mark.slow
def test_profiles_name_the_operations_of_a_step(tmp_path):
    output = run_alone(
        "profile_step.py",
        "--backbone=small",
        "--batch_size=4",
        "--profiled_steps=1",
        "--threads=1",
        f"--output_dir={tmp_path}",
    )
    assert re.findall(r"^(\w+): \d+ ms$", output, re.M) == [
        "before",
        "after",
        "eeil",
    ]
    assert "Conv2DBackpropFilter" in output
    shares = re.findall(r"convolutions: ([\d.]+)% at \d+ GFLOP/s", output)
    assert len(shares) == 3 and all(0 < float(s) < 100 for s in shares)


@pytest.mark.slow
def test_new_classes_become_a_version_and_old_ones_are_kept():
    output = run_alone(
        "new_classes.py", "--turns=1", "--pixels=64", "--images=10"
    )
    (figures,) = map(json.loads, re.findall(r"\{.*\}", output))
    assert figures["seconds"] > 0 and figures["new"] > 0.3
    assert figures["old_after"] > figures["old_before"] - 0.2


@pytest.mark.slow
def test_trunks_are_compared_by_what_they_cost():
    output = run("trunks.py", "--size=64", "--applications=MobileNetV3Small")
    assert "| efficientnet_lite0 | 1280 | 3.41 M |" in output
    assert "| MobileNetV3Small | 576 | 0.94 M |" in output
