"""Starts programs and groups of workers, and never waits for ever."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = pathlib.Path(__file__).with_name("scenario.py")
LIMIT = 900  # seconds; a few minutes on two idle cores


class Process:
    """A process group with its output in a file."""

    def __init__(self, folder, arguments, tf_config=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(ROOT),
        }
        if tf_config is not None:
            environment["TF_CONFIG"] = json.dumps(tf_config)
        with open(self.log, "w") as log:
            self._process = subprocess.Popen(
                [sys.executable, PROGRAM, f"--out={folder}", *arguments],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def is_running(self):
        return self._process.poll() is None

    def kill(self):
        """Kills the whole group, if it is still there."""
        if self.is_running():
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def wait(self, until):
        """Returns the exit code; fails if there is none at that time."""
        try:
            return self._process.wait(max(0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running:\n{self.output()}")

    def output(self):
        return self.log.read_text()[-5000:]


class Group:
    """One process, or several workers, killed when the block is left."""

    def __init__(self, processes):
        self.processes = processes
        self._until = time.monotonic() + LIMIT

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()

    def exit_codes(self):
        return [process.wait(self._until) for process in self.processes]

    def succeed(self):
        """Waits; fails with the output of a process that failed."""
        for code, process in zip(
            self.exit_codes(), self.processes, strict=True
        ):
            if code:
                pytest.fail(process.output())


def free_ports(count):
    """Returns ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for item in sockets:
        item.bind(("localhost", 0))
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


@pytest.fixture(scope="session")
def one_process():
    """Returns a function that starts the program under a strategy."""

    def start(folder, strategy, *arguments):
        return Group([Process(folder, [f"--strategy={strategy}", *arguments])])

    return start


@pytest.fixture(scope="session")
def two_workers():
    """Returns a function that starts the program in two workers."""

    def start(folder, *arguments):
        addresses = [f"localhost:{port}" for port in free_ports(2)]
        return Group(
            [
                Process(
                    folder / str(index),
                    ["--strategy=workers", *arguments],
                    {
                        "cluster": {"worker": addresses},
                        "task": {"type": "worker", "index": index},
                    },
                )
                for index in range(2)
            ]
        )

    return start
