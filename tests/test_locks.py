"""One process at a time in a folder, and none that is dead."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from keras_incremental.locks import lock_folder

fcntl = pytest.importorskip("fcntl")

HOLDER = """
import fcntl, os, sys, time
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX)
file.write(f"Process {os.getpid()} on host 'elsewhere', since noon,")
file.flush()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture(name="holder")
def _holder(tmp_path):
    """Another process, which holds the lock of `tmp_path`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / ".lock")],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def is_free(folder):
    with open(folder / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_the_second_process_is_told_who_holds_a_folder(tmp_path, holder):
    message = f"Process {holder.pid} on host 'elsewhere', since noon, uses"
    with pytest.raises(BlockingIOError, match=message) as caught:
        lock_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_killed_process_holds_nothing(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock = lock_folder(tmp_path)
    assert not is_free(tmp_path)
    text = (tmp_path / ".lock").read_text()
    holder = f"Process {os.getpid()} on host {socket.gethostname()!r}, since "
    assert text.startswith(holder) and "noon" not in text
    del lock
    assert is_free(tmp_path)


def test_a_forked_child_does_not_hold_the_lock_of_its_parent(tmp_path):
    """As the workers of a `PyDataset`, which outlive a parent's kill."""
    lock = lock_folder(tmp_path)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"1")
        signal.pause()
    assert os.read(reader, 1) == b"1"
    assert not is_free(tmp_path)
    del lock
    freed = is_free(tmp_path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert freed


def test_a_process_shares_its_lock_and_takes_that_of_a_new_folder(tmp_path):
    lock = lock_folder(tmp_path)
    assert lock_folder(f"{tmp_path}/.") is lock
    (tmp_path / ".lock").unlink()
    of_new_file = lock_folder(tmp_path)
    assert of_new_file is not lock
    assert not is_free(tmp_path)


def test_an_object_store_is_not_locked(bucket):
    assert lock_folder(bucket) is None


def test_a_file_system_without_locks_is_not_locked(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert lock_folder(tmp_path) is None
