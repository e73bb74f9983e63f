"""Attacks what is kept on disk, and counts what was not as it should be.

    python tests/attack.py --rounds=20 --only=model_file

An attack is a module in `tests/attacks/` with

- `attack(rounds, seed, folder) -> dict`: figures by name, `wrong` among them,
  which counts wrong results; `folder` is an empty one that it may fill;
- `SHORT`: its rounds in the default tests; 0 leaves it to the slow ones.

Prints one line an attack, and exits with 1 if a result was wrong.
"""

import importlib
import pathlib
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from absl import app, flags  # noqa: E402

_ROUNDS = flags.DEFINE_integer("rounds", 20, "Rounds of each attack.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "For what is drawn at random.")
_ONLY = flags.DEFINE_list("only", [], "Names of attacks; all by default.")


def attacks() -> dict:
    """Returns the modules of all attacks by name."""
    names = sorted(path.stem for path in (HERE / "attacks").glob("[!_]*.py"))
    return {name: importlib.import_module(f"attacks.{name}") for name in names}


def run(module, rounds: int, seed: int) -> dict:
    """Runs one attack in a folder of its own; returns its figures."""
    with tempfile.TemporaryDirectory() as folder:
        return module.attack(rounds, seed, pathlib.Path(folder))


def _line(module, rounds: int, seed: int) -> tuple[bool, str]:
    """Runs one attack; returns whether all was right, and its figures."""
    try:
        figures = run(module, rounds, seed)
    except Exception:
        return False, traceback.format_exc()
    text = ", ".join(f"{name} {value}" for name, value in figures.items())
    return not figures["wrong"], text


def main(argv):
    del argv
    found = attacks()
    if unknown := set(_ONLY.value) - set(found):
        raise app.UsageError(f"--only={sorted(unknown)}; there are {[*found]}.")
    failed = False
    for name in _ONLY.value or found:
        started = time.perf_counter()
        is_right, text = _line(found[name], _ROUNDS.value, _SEED.value)
        failed |= not is_right
        seconds = time.perf_counter() - started
        verdict = "" if is_right else "WRONG: "
        print(f"{name}: {verdict}{text} ({seconds:.1f} s)", flush=True)
    return int(failed)


if __name__ == "__main__":
    app.run(main)
