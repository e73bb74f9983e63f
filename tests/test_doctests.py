"""Every example in the package's docstrings runs and shows what it says."""

import doctest
import importlib
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki

pytestmark = pytest.mark.slow

PACKAGE = pathlib.Path(ki.__file__).parent
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
NAMES = {"np": np, "tf": tf, "keras": keras, "keras_incremental": ki, "ki": ki}


def module_name(path):
    relative = path.relative_to(PACKAGE.parent).with_suffix("")
    return ".".join(relative.parts).removesuffix(".__init__")


def modules_with_examples():
    """Returns the names of modules by the folder that they are in."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            folder = path.parent.relative_to(PACKAGE).as_posix()
            found.setdefault(folder, []).append(module_name(path))
    return found


MODULES = modules_with_examples()


def examples_of(module):
    """Returns the docstrings of a module that hold examples."""
    found = doctest.DocTestFinder(exclude_empty=True).find(
        module, extraglobs=NAMES
    )
    return [test for test in found if test.examples]


def failures_of(name):
    """Runs the examples of a module; returns the report of those that fail."""
    keras.utils.set_random_seed(0)
    examples = examples_of(importlib.import_module(name))
    if not examples:
        return f"{name} has examples that doctest does not find"
    runner = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False)
    report = []
    for example in examples:
        runner.run(example, out=report.append)
    return "".join(report) if runner.summarize(verbose=False).failed else ""


@pytest.mark.parametrize("folder", MODULES)
def test_examples_of(folder):
    reports = [failures_of(name) for name in MODULES[folder]]
    assert not any(reports), "\n".join(reports)


def test_a_wrong_example_is_noticed():
    runner = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False)
    wrong = doctest.DocTestParser().get_doctest(
        ">>> 1 + 1\n3\n", {}, "wrong", None, 0
    )
    report = []
    assert runner.run(wrong, out=report.append).failed == 1
    assert "Expected" in "".join(report)
