"""Workers that die, and workers that do not fit together."""

import time

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]

COMMITS_BEFORE_THE_KILL = 5


def wait_for_commits(group, folder, count):
    """Returns once so many backups have been made in a folder."""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        states = sorted(folder.glob("state-*.json"))
        if states and int(states[-1].stem.removeprefix("state-")) >= count:
            return
        if not all(process.is_running() for process in group.processes):
            break
        time.sleep(0.02)
    pytest.fail(group.processes[0].output())


def test_both_workers_restarted_after_one_died_end_as_one_device_does(
    tmp_path, one_process, two_workers
):
    runs = ("--runs=resumed", "--grappler")
    arguments = (*runs, f"--backup={tmp_path / 'backup'}")
    with two_workers(tmp_path / "killed", *arguments) as group:
        wait_for_commits(group, tmp_path / "backup", COMMITS_BEFORE_THE_KILL)
        group.processes[1].kill()
        codes = group.exit_codes()  # the survivor ends, and does not hang
    assert codes[0] != 0
    assert not (tmp_path / "killed" / "0" / "resumed.npz").exists()
    with two_workers(tmp_path / "resumed", *arguments) as group:
        group.succeed()
    with one_process(tmp_path / "one", "one_device", *runs) as group:
        group.succeed()
    expected = np.load(tmp_path / "one" / "resumed.npz")
    for index in range(2):
        found = np.load(tmp_path / "resumed" / str(index) / "resumed.npz")
        assert set(found.files) == set(expected.files)
        for name in found.files:
            np.testing.assert_allclose(
                found[name], expected[name], rtol=1e-4, atol=1e-5
            )


def test_workers_with_other_seeds_or_epochs_are_refused_before_training(
    tmp_path, two_workers
):
    with two_workers(tmp_path, "--differing=seed,epochs", "--runs=") as group:
        group.succeed()
    for process in group.processes:
        seed, epochs = process.output().split("\nepochs: ")
        assert "do not have the same weights" in seed
        assert "set_random_seed" in seed
        assert "do not have the same data, options" in epochs
