"""The list of mutants fits the package, and the script tells what came of one.

The mutants themselves are run by `python tests/mutants.py`.
"""

import importlib.util
import pathlib
import sys
from unittest import mock

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def mutants():
    """The module `tests/mutants.py`."""
    path = ROOT / "tests/mutants.py"
    spec = importlib.util.spec_from_file_location("mutants_script", path)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {spec.name: module}):
        spec.loader.exec_module(module)
        yield module


def test_the_old_text_of_every_mutant_occurs_once_in_its_file(mutants):
    found = mutants.read_mutants()
    assert len(found) >= 100
    assert len({mutant.name for mutant in found}) == len(found)
    for mutant in found:
        text = (ROOT / mutants.PACKAGE / mutant.file).read_text("utf-8")
        changed = mutant.applied(text)
        assert changed is not None, f"{mutant.name}: {text.count(mutant.old)}"
        assert changed != text, mutant.name
        compile(changed, mutant.file, "exec")
        for test in mutant.selection():
            assert _exists(test), f"{mutant.name}: {test}"


def _exists(test):
    """Whether there is a path, or a function `path::name[parameters]`."""
    path, _, name = test.partition("::")
    name = name.partition("[")[0]
    if not name:
        return (ROOT / path).exists()
    return f"\ndef {name}(" in (ROOT / path).read_text("utf-8")


@pytest.fixture
def repository(tmp_path):
    """A package of one function and one test, which sees one of its sides."""
    for name, text in {
        "keras_incremental/__init__.py": "",
        "keras_incremental/signs.py": "def sign(x):\n    return x > 0, x < 0\n",
        "tests/test_signs.py": (
            "from keras_incremental.signs import sign\n"
            "def test_sign_of_one():\n"
            "    assert sign(1)[0]\n"
        ),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ("x > 0", "x > 1", "CAUGHT"),
        pytest.param("x < 0", "x < -1", "SURVIVED", marks=pytest.mark.slow),
        ("x", "y", "NOT_FOUND"),
        pytest.param("x > 0", "x >", "NO_RUN", marks=pytest.mark.slow),
    ],
)
def test_the_verdict_is_that_of_the_tests_on_a_changed_copy(
    mutants, repository, old, new, verdict
):
    before = (repository / "keras_incremental/signs.py").read_text()
    mutant = mutants.Mutant("signs.py", old, new, "signs are right")
    found, _ = mutants.run(mutant, root=repository)
    assert found is mutants.Verdict[verdict]
    assert (repository / "keras_incremental/signs.py").read_text() == before
