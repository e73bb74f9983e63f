"""`--help` of the examples: at once, and what the flags say."""

import pathlib
import re
import subprocess
import sys

import pytest
from absl import flags

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
ANSWERS = sorted((EXAMPLES / "help").glob("*.txt"))
FIX = "Run `python examples/quick_help.py`."


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda path: path.stem)
def test_it_names_each_flag_with_its_help(answer, load):
    with load(answer.stem) as script:
        modules = [script]
        if answer.stem == "train":
            modules += [script.method_flags, script.scenario_flags]
        defined = {
            flag.name: flag
            for module in modules
            for flag in flags.FLAGS.get_key_flags_for_module(module)
        }
    text = answer.read_text(encoding="utf-8")
    named = re.findall(r"^  (?:-\w,)?--(?:\[no\])?(\w+):?", text, re.MULTILINE)
    assert sorted(named) == sorted(defined), FIX
    squeezed = "".join(text.split())  # long words are broken anywhere
    for name, flag in defined.items():
        default = "" if flag.default is None else flag.default_as_str
        assert "".join(flag.help.split()) in squeezed, f"{name}: {FIX}"
        assert "".join(default.split()) in squeezed, f"{name}: {FIX}"


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda path: path.stem)
def test_it_comes_before_tensorflow_is_imported(answer):
    script = EXAMPLES / f"{answer.stem}.py"
    finished = subprocess.run(
        [sys.executable, "-X", "importtime", script, "--help"],
        capture_output=True,
        check=True,
        text=True,
    )
    assert finished.stdout == answer.read_text(encoding="utf-8")
    assert "tensorflow" not in finished.stderr
