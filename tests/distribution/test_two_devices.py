"""The parts of `distribution.py` on two logical devices of one process."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("two_devices.py")


@pytest.fixture(scope="module")
def results():
    found = subprocess.run(
        [sys.executable, SCRIPT],
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(SCRIPT.parents[2]),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not found.returncode, found.stderr[-3000:]
    return json.loads(found.stdout.splitlines()[-1])


def test_what_replicas_have_moved_apart_gets_its_mean(results):
    assert results["averaged"]["apart"] == [[2.0, 5.0], [2.0, 5.0]]


def test_what_is_equal_stays_equal_to_the_bit(results):
    averaged = results["averaged"]
    assert averaged["equal"] == [averaged["before"]] * 2


def test_parts_are_in_order_and_differ_by_one_row_at_most(results):
    assert results["split"] == [
        [[0, 1], [2, 3, 4]],
        [[5], [6]],
        [[], [7]],
    ]


def test_the_shares_of_a_mean_add_up_to_the_mean_of_all_rows(results):
    # 3 rows of 2 and 1 of 6: (3 * 2 + 1 * 6) / 4 = 3.
    assert results["shares"] == [1.5, 1.5]


def test_a_replica_without_a_row_has_no_logits_and_no_mean(results):
    assert results["empty"] == {"shapes": [[0, 3]] * 2, "means": [0.0, 0.0]}


def test_a_plain_fit_has_all_its_steps(results):
    # 9 images in batches of 4: the last has a row for one replica alone.
    found = results["plain_fit"]
    assert found["steps"] == 3 * 3
    assert len(found["accuracy"]) == 3


def test_l2_is_that_of_one_device(results):
    """Two steps of `b = 0.9 b + 0.2 w; w = w - 0.5 b`."""
    # b = 0.2, w = 0.9; then b = 0.18 + 0.18 = 0.36, w = 0.9 - 0.18 = 0.72.
    for shares in results["decay"]["shares"]:
        assert shares == [pytest.approx(0.72, rel=1e-5)] * len(shares)
    assert set(results["decay"]["reserve"]) == {0.0}
