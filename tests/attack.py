"""Attacks what is kept on disk, and counts what was not as it should be.

    python tests/attack.py --rounds=20 --only=model_file

An attack is a module in `tests/attacks/` with

- `attack(rounds, seed, folder) -> dict`: figures by name, `wrong` among them,
  which counts wrong results; `folder` is an empty one that it may fill;
- `SHORT`: its rounds in the default tests; 0 leaves it to the slow ones;
- `LONG`: its rounds in the slow tests.

Prints one line an attack, and exits with 1 if a result was wrong.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]


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


def _parse(arguments, names) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="of each")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        help="an attack; may be repeated; all by default",
    )
    return parser.parse_args(arguments)


def main(arguments=None) -> int:
    """Runs the attacks; returns 1 if a result was wrong."""
    found = attacks()
    options = _parse(arguments, [*found])
    failed = False
    for name in options.only or found:
        started = time.perf_counter()
        is_right, text = _line(found[name], options.rounds, options.seed)
        failed |= not is_right
        seconds = time.perf_counter() - started
        verdict = "" if is_right else "WRONG: "
        print(f"{name}: {verdict}{text} ({seconds:.1f} s)", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
