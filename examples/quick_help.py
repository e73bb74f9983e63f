"""Answers --help at once: scripts import this before TensorFlow, which is slow.

    python examples/quick_help.py

writes the answers anew, into help/, after a flag or a field of a method has
changed. A test compares them with the flags.
"""

import os
import pathlib
import subprocess
import sys

ANSWERS = pathlib.Path(__file__).with_name("help")


def write() -> None:
    """Writes what each script of `help/` says of its flags."""
    for answer in sorted(ANSWERS.glob("*.txt")):
        script = f"examples/{answer.stem}.py"
        finished = subprocess.run(
            [sys.executable, script, "-?"],  # as --help, but asks the script
            capture_output=True,
            check=False,  # absl ends with 1
            cwd=ANSWERS.parents[1],
            env={**os.environ, "COLUMNS": "80"},
            text=True,
        )
        lines = [line.rstrip() for line in finished.stdout.splitlines()]
        answer.write_text("\n".join(lines) + "\n", encoding="utf-8")


if sys.argv[1:] == ["--help"]:
    found = ANSWERS / f"{pathlib.Path(sys.argv[0]).stem}.txt"
    if found.exists():
        sys.stdout.write(found.read_text(encoding="utf-8"))
        sys.exit()

if __name__ == "__main__":
    write()
elif "tensorflow" not in sys.modules:
    sys.stderr.write("Importing TensorFlow, which takes some seconds\n")
