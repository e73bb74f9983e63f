"""Kills a digits run at random moments, resumes it, and compares the end.

    python tests/examples/kill_and_resume.py --kills=20

Runs `examples/train.py` once without a break, and once killed (SIGKILL) again
and again, with the same flags and --deterministic. Prints where each kill hit
and whether weights, memory and results are identical, seconds aside; exits
with 1 if they are not.
"""

import argparse
import collections
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).parents[2]
_PROCESS_FACTS = ("test_function_traces",)


def command(folder, epochs, finetune_epochs):
    return [
        sys.executable,
        str(ROOT / "examples" / "train.py"),
        f"--flagfile={ROOT}/examples/configs/eeil_digits.flags",
        "--deterministic",
        f"--epochs={epochs}",
        f"--finetune_epochs={finetune_epochs}",
        f"--output_dir={folder / 'out'}",
        f"--backup_dir={folder / 'backup'}",
        f"--export_dir={folder / 'export'}",
    ]


def run(args, log):
    with open(log, "w") as file:
        return subprocess.Popen(
            args, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
        )


def states(folder):
    return sorted(path.name for path in (folder / "backup").glob("state-*"))


def unfinished(folder):
    """Returns what is being written, by name; a kill leaves it behind."""
    backups = (folder / "backup").glob(".*.tmp")
    versions = (folder / "export").glob(".*")
    return {path.name: "while a backup was written" for path in backups} | {
        path.name: "while a version was exported" for path in versions
    }


def place(folder):
    """Says in words what the killed process was at."""
    record = json.loads((folder / "backup" / states(folder)[-1]).read_text())
    record = record["record"]
    progress = record["progress"]
    if progress is None:
        is_published = record["tasks"][-1]["published"]
        return "before training" if is_published else "before the export"
    finished = progress["epochs"]
    if progress["phase"] == 0:
        return f"in training, after epoch {finished}"
    return f"in fine-tuning or the memory update, after epoch {finished}"


def kill_at_random(args, folder, log, chance):
    """Runs until a random moment; returns None if the run ended before.

    Every third kill, on average, waits for a backup or a version that is being
    written, which takes a small part of the time.
    """
    left, is_aimed = unfinished(folder), chance.random() < 1 / 3
    process = run(args, log)
    before, commits = states(folder), chance.randrange(1, 4)
    seen, found = set(before), {}
    while process.poll() is None and len(seen - set(before)) < commits:
        seen.update(states(folder))
        time.sleep(0.002)
    deadline = time.monotonic() + chance.uniform(0, 0.3)
    while process.poll() is None and not found:
        if is_aimed:
            found = {
                name: what
                for name, what in unfinished(folder).items()
                if name not in left
            }
        elif time.monotonic() > deadline:
            break
        else:
            time.sleep(0.002)
    if process.poll() is not None:
        if process.returncode:
            raise SystemExit(pathlib.Path(log).read_text()[-3000:])
        return None
    process.kill()
    process.wait()
    written = [w for name, w in unfinished(folder).items() if name not in left]
    return written[0] if written else place(folder)


def without_seconds(item):
    if isinstance(item, dict):
        return {
            key: without_seconds(value)
            for key, value in item.items()
            if not key.endswith("seconds") and key not in _PROCESS_FACTS
        }
    return (
        [without_seconds(v) for v in item] if isinstance(item, list) else item
    )


def differences(one, other):
    """Names what differs between two finished runs."""
    found = []
    name = "memory/memory.npz"
    contents = [(run / "out" / name).read_bytes() for run in (one, other)]
    if contents[0] != contents[1]:
        found.append(name)
    weights = [
        zipfile.ZipFile(folder / "out" / "model.keras").read("model.weights.h5")
        for folder in (one, other)
    ]
    if weights[0] != weights[1] and not equal_weights(one, other):
        found.append("model.keras")
    results = [
        without_seconds(json.loads((f / "out" / "results.json").read_text()))
        for f in (one, other)
    ]
    found += [key for key in results[0] if results[0][key] != results[1][key]]
    return found


def equal_weights(one, other):
    import keras

    import keras_incremental  # noqa: F401  (its classes are in the file)

    models = [
        keras.models.load_model(folder / "out" / "model.keras", compile=False)
        for folder in (one, other)
    ]
    return all(
        (a == b).all()
        for a, b in zip(*(m.get_weights() for m in models), strict=True)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--finetune_epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    home = pathlib.Path(tempfile.mkdtemp(prefix="kill_and_resume_"))
    whole, killed = home / "whole", home / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    schedule = (options.epochs, options.finetune_epochs)
    straight = run(command(whole, *schedule), whole / "log")
    if straight.wait():
        raise SystemExit((whole / "log").read_text()[-3000:])
    places = collections.Counter()
    for kill in range(options.kills):
        hit = kill_at_random(
            command(killed, *schedule), killed, killed / "log", chance
        )
        if hit is None:
            print(f"the run ended before kill {kill + 1}")
            break
        print(f"kill {kill + 1}: {hit}", flush=True)
        places[hit.split(",")[0]] += 1
    last = run(command(killed, *schedule), killed / "log")
    if last.wait():
        raise SystemExit((killed / "log").read_text()[-3000:])
    found = differences(whole, killed)
    print(f"{sum(places.values())} kills: {dict(places)}")
    print(f"differences: {found or 'none'}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
