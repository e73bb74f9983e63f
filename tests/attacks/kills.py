"""Kills (SIGKILL) a run again and again; its end must not differ by a bit."""

import collections
import functools
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

STEPS = pathlib.Path(__file__).with_name("_steps.py")
SHORT = 0  # it takes minutes
LONG = 3
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(STEPS.parents[2])}
# Each second kill waits for one of these in turn: they take little time.
AIMS = (
    "while a backup was written",
    "while a version was written",
    "between publication and its record",
)


def attack(rounds, seed, folder):
    """Compares runs that are killed `rounds` times in all with a whole one.

    Args:
        rounds: how many kills.
        seed: of the moments.
        folder: an empty folder, for the files.

    Returns:
        Figures by name: kills, where they fell, runs that were compared, and
        what differed, which is to be nothing.
    """
    chance = random.Random(seed)
    whole = whole_end()
    places, differing, runs = collections.Counter(), [], 0
    while places.total() < rounds:
        run, runs = Run(folder / f"killed_{runs}"), runs + 1
        while places.total() < rounds and (
            place := run.kill(chance, aim_of(places.total()))
        ):
            places[place] += 1
        run.finish()
        differing += [
            key for key, value in whole.items() if run.end()[key] != value
        ]
    return {
        "kills": places.total(),
        "places": dict(places),
        "runs compared": runs,
        "compared": [*whole],
        "differences": differing,
        "wrong": len(differing),
    }


@functools.cache
def whole_end():
    """Returns the end of a run that nothing disturbs."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(pathlib.Path(folder) / "whole")
        run.finish()
        return run.end()


def aim_of(number):
    """Returns what the kill of this number waits for, or None."""
    return AIMS[number // 2 % len(AIMS)] if number % 2 else None


class Run:
    """One run, in as many processes as it takes."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True)
        self._backup, self._served = folder / "backup", folder / "served"

    def finish(self):
        """Runs to the end."""
        process = self._start()
        if process.wait():
            raise AssertionError(self._log().read_text()[-3000:])

    def end(self):
        """Returns what the program says of its end."""
        return json.loads((self.folder / "end.json").read_text())

    def kill(self, chance, aim=None):
        """Kills a process of the run; returns at what, or None at its end."""
        before, newest = self._names(), self._newest()
        commits, delay = chance.randrange(4), chance.uniform(0, 0.5)
        if aim in AIMS[1:]:  # twice a run
            commits = 0
        process = self._start()
        _wait(process, lambda: self._newest() - newest >= commits)
        if aim:
            _wait(process, lambda: aim == self._at(before))
        else:
            time.sleep(delay)
        process.kill()
        if process.wait() == 0:
            return None
        if process.returncode > 0:
            raise AssertionError(self._log().read_text()[-3000:])
        return self._at(before) or self._place()

    def _start(self):
        with self._log().open("w") as log:
            return subprocess.Popen(
                [sys.executable, str(STEPS), str(self.folder)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT,
            )

    def _log(self):
        return self.folder / "log"

    def _newest(self):
        """Returns the number of the newest backup."""
        names = [path.stem for path in self._backup.glob("state-*.json")]
        return max(
            (int(name.removeprefix("state-")) for name in names), default=-1
        )

    def _names(self):
        """Returns the names of versions, and of what is being written."""
        found = [*self._backup.glob(".*.tmp"), *self._served.glob("*")]
        return {(path.parent.name, path.name) for path in found}

    def _at(self, before):
        """Returns at which of `AIMS` the process is, or None."""
        new = self._names() - before
        versions = len([*self._served.glob("[0-9]*")])
        if any(name.isdecimal() for _, name in new) and (
            versions > self._recorded()
        ):
            return AIMS[2]
        hidden = {folder for folder, name in new if name.startswith(".")}
        if self._served.name in hidden:
            return AIMS[1]
        return AIMS[0] if self._backup.name in hidden else None

    def _record(self):
        path = self._backup / f"state-{self._newest():08}.json"
        if not path.exists():
            return {"tasks": [], "progress": None}
        return json.loads(path.read_text())["record"]

    def _recorded(self):
        """Returns how many versions are recorded as published."""
        reports = [task["report"] for task in self._record()["tasks"]]
        return sum(report["published"] is not None for report in reports)

    def _place(self):
        record = self._record()
        if record["progress"] is None:
            return f"after step {len(record['tasks'])}"
        phase = record["progress"]["state"]["phase"]
        return "in fine-tuning" if phase else "in training"


def _wait(process, condition):
    """Waits until something is so, or the process has ended."""
    while process.poll() is None and not condition():
        time.sleep(0.001)
