"""Starts a run twice on one folder: one trains, and the other is told."""

import json
import os
import pathlib
import random
import subprocess
import sys
import time

from attacks import kills

STEPS = pathlib.Path(__file__).with_name("_steps.py")
SHORT = 0  # it takes minutes
LONG = 2
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(STEPS.parents[2])}


def attack(rounds, seed, folder):
    """Starts two processes at a time, and kills one of them now and then.

    In each second round the process that has the folder is killed, and a third
    one is started at once: it must not be refused, nor wait.

    Args:
        rounds: how many pairs of processes.
        seed: of the moments.
        folder: an empty folder, for the files.

    Returns:
        Figures by name: the second processes that were told who has the folder,
        the kills after which a third one went on, and what differed from the
        end of a process alone, which is to be nothing.
    """
    chance = random.Random(seed)
    alone = kills.whole_end()
    told, resumed, differing = 0, 0, []
    for index in range(rounds):
        home = folder / f"round_{index}"
        home.mkdir()
        first = start(home, "first")
        time.sleep(chance.choice([0, chance.uniform(0, 1)]))
        second = start(home, "second")
        while first.poll() is second.poll() is None:
            time.sleep(0.01)
        if second.poll() is None:
            first, second = second, first
        told += is_told(first, second)
        if index % 2:
            time.sleep(chance.uniform(0, 3))
            first.kill()
            first.wait()
            first = start(home, "third")
            resumed += 1
        end = end_of(first)
        differing += [key for key in alone if alone[key] != end[key]]
    return {
        "pairs of processes": rounds,
        "told who has the folder": told,
        "resumed after a kill": resumed,
        "compared": [*alone],
        "differences": differing,
        "wrong": len(differing) + rounds - told,
    }


def start(home, name):
    """Starts the program in a folder, with a log of its own."""
    path = home / f"{name}.log"
    with path.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(STEPS), str(home)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
        )
    process.log = path
    return process


def is_told(first, second):
    """Whether the process that has ended was told of the one that goes on."""
    text = second.log.read_text()
    if second.returncode == 0:
        return False
    if f"Process {first.pid} on host" not in text:
        raise AssertionError(text[-3000:])
    return True


def end_of(process):
    """Waits for a process; returns what it says of its end."""
    if process.wait():
        raise AssertionError(process.log.read_text()[-3000:])
    return json.loads(process.log.with_name("end.json").read_text())
