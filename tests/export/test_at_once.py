"""Publishing while others read, and while others publish.

`tests/attacks/publications.py` has a reader in a process of its own.
"""

import concurrent.futures
import os
import pathlib
import subprocess
import sys
import threading

import pytest
import tensorflow as tf

from keras_incremental.export import publish, version_folders
from keras_incremental.export.version_folders import MARKER

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


def start(script, *args):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, HERE / script, *map(str, args)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def contents(folder):
    """Returns every file below a folder, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_version_is_whole_when_it_is_first_seen(vectors, tmp_path):
    first_seen, done = {}, threading.Event()

    def watch():
        while not done.is_set():
            for version in tmp_path.glob("[0-9]*"):
                if version.name not in first_seen:
                    first_seen[version.name] = contents(version)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        watching = pool.submit(watch)
        try:
            versions = [publish(vectors, tmp_path) for _ in range(2)]
        finally:
            done.set()
        watching.result()
    assert "1" in first_seen
    for version in versions:
        if version.name in first_seen:
            assert first_seen[version.name] == contents(version)


@pytest.mark.slow
def test_two_processes_that_publish_at_once_do_not_clash(tmp_path):
    publishes = 5
    base, begin = tmp_path / "served", tmp_path / "begin"
    both = ["left", "right"]
    processes = [
        start("publish_often.py", base, name, publishes, begin) for name in both
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    begin.touch()
    written = {
        name: finish(process).split()
        for name, process in zip(both, processes, strict=True)
    }
    numbers = [str(n) for n in range(1, 2 * publishes + 1)]
    assert sorted(written["left"] + written["right"], key=int) == numbers
    assert sorted((path.name for path in base.iterdir()), key=int) == numbers
    for name in both:
        for number in written[name]:
            assert names_of(base / number) == [name.encode(), b"other"]


def names_of(version):
    """Returns the names in a version's graph, which must fit its text file."""
    served = tf.saved_model.load(str(version)).signatures["serving_default"]
    outputs = served(images=tf.zeros((1, 4, 4, 1)))
    ids, names = outputs["class_ids"][0].numpy(), outputs["classes"][0].numpy()
    ordered = [name for _, name in sorted(zip(ids, names, strict=True))]
    text = (version / "assets" / "class_names.txt").read_bytes()
    assert text.splitlines() == ordered
    return ordered


def test_many_threads_that_add_and_prune_at_once_do_not_clash(tmp_path):
    threads, times = 8, 25

    def add(thread):
        def write(folder):
            (folder / MARKER).parent.mkdir()
            (folder / MARKER).write_text(str(thread))

        versions = []
        for _ in range(times):
            version = version_folders.add(tmp_path, write)
            versions.append(int(version.name))
            version_folders.prune(tmp_path, 30)
        return versions

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        written = list(pool.map(add, range(threads)))
    numbers = sorted(number for versions in written for number in versions)
    assert numbers == list(range(1, threads * times + 1))
    assert all(versions == sorted(versions) for versions in written)
    assert (
        sorted(int(path.name) for path in tmp_path.iterdir()) == numbers[-30:]
    )
