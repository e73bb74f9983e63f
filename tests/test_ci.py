"""The README's commands work, and continuous integration runs them."""

import ast
import inspect
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import tensorflow_datasets
from setuptools import find_packages

ROOT = pathlib.Path(__file__).parents[1]
TEST_COMMAND = (
    'python3 -m venv .venv && .venv/bin/pip install -q -e ".[test]" '
    "&& .venv/bin/python -m pytest -n auto --dist loadfile"
)
MAIN_COMMAND = (
    'python3 -m venv .venv && .venv/bin/pip install -q -e ".[examples]" '
    "&& .venv/bin/python examples/train.py "
    "--flagfile=examples/configs/eeil_digits.flags --output_dir=out/digits"
)
# Stands for the README's command: makes a Python that prints its arguments.
STAND_IN = (
    "mkdir -p .venv/bin && printf '#!/bin/sh\\necho \"ran $*\"\\n' "
    "> .venv/bin/python && chmod +x .venv/bin/python && "
    ".venv/bin/python -m pytest"
)


def readme_lines():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines()]


def setup_call():
    """Returns the keywords of `setuptools.setup`, and the names it uses."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    names = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
    }
    call = tree.body[-1].value
    return {k.arg: k.value for k in call.keywords}, names


@pytest.fixture
def project(tmp_path):
    """Returns a function that makes a project of a README and .ci/run."""

    def make(readme):
        (tmp_path / ".ci").mkdir()
        shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
        (tmp_path / "README.md").write_text(readme)
        return tmp_path

    return make


def run_ci(folder):
    return subprocess.run(
        ["bash", ".ci/run"],
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("command", [TEST_COMMAND, MAIN_COMMAND])
def test_readme_has_the_command_once(command):
    assert readme_lines().count(command) == 1


def test_readme_has_one_line_that_runs_pytest():
    assert sum("-m pytest" in line for line in readme_lines()) == 1


def test_files_and_extras_of_the_readme_exist():
    keywords, _ = setup_call()
    extras = {key.value for key in keywords["extras_require"].keys if key}
    text = "\n".join(readme_lines())
    for path in re.findall(r"--flagfile=(\S+)", text):
        assert (ROOT / path.rstrip("`.,")).is_file(), path
    assert set(re.findall(r'"\.\[(\w+)\]"', text)) <= extras


def test_ci_runs_the_readme_s_command_then_lint_then_slow_tests(project):
    folder = project(f"# Title\n\n    {STAND_IN}\n")
    result = run_ci(folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "ran -m pytest",
        "ran -m ruff check .",
        "ran -m ruff format --check .",
        "ran -m pytest -m slow and not timed -n auto --dist loadfile",
        "ran -m pytest -m timed tests/benchmarks tests/exemplars",
    ]


def test_ci_starts_from_a_fresh_environment(project):
    folder = project(f"{STAND_IN}\n")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "stale").touch()
    assert run_ci(folder).returncode == 0
    assert not (folder / ".venv" / "stale").exists()


def test_ci_fails_and_stops_where_the_readme_s_command_fails(project):
    result = run_ci(project("echo started && false && echo -m pytest\n"))
    assert result.returncode != 0
    assert result.stdout.splitlines() == ["started"]


@pytest.mark.parametrize(
    "readme",
    ["# Title\n", "python -m pytest\npython -m pytest -k some\n"],
    ids=["none", "two"],
)
def test_ci_refuses_a_readme_without_one_test_command(project, readme):
    result = run_ci(project(readme))
    assert result.returncode != 0
    assert "README.md needs one line" in result.stderr
    assert not result.stdout


def test_only_the_package_is_installed():
    packages = find_packages(
        str(ROOT), include=["keras_incremental", "keras_incremental.*"]
    )
    keywords, _ = setup_call()
    (include,) = keywords["packages"].keywords
    assert ast.literal_eval(include.value) == [
        "keras_incremental",
        "keras_incremental.*",
    ]
    folders = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for path in (ROOT / "keras_incremental").rglob("*.py")
    }
    assert set(packages) == folders


def test_setup_reads_the_version_without_importing_the_package():
    version = (ROOT / "keras_incremental" / "_version.py").read_text()
    setup = ast.parse((ROOT / "setup.py").read_text())
    imported = {
        name.name
        for node in ast.walk(setup)
        if isinstance(node, ast.Import)
        for name in node.names
    }
    assert "keras_incremental" not in imported
    namespace = {"ROOT": ROOT, "ast": ast, "pathlib": pathlib}
    (function,) = [n for n in setup.body if isinstance(n, ast.FunctionDef)]
    code = compile(ast.Module([function], []), "setup.py", "exec")
    exec(code, namespace)
    assert f'"{namespace["read_version"]()}"' in version


def imports_of(folder):
    """Yields the file and the module of each import from outside."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names:
                    yield path, top


def names_in(requirements):
    """Returns the names of packages, as they are imported."""
    return {
        re.split(r"[\[><=;! (]", item)[0].lower().replace("-", "_")
        for item in requirements
    }


def required(names):
    """Returns what a list of setup.py requires, as it is imported."""
    return names_in(item.value for item in setup_call()[1][names].elts)


def test_every_import_of_the_package_is_an_installed_requirement():
    # The weights of a network trained on ImageNet are an extra.
    known = required("INSTALL_REQUIRES") | required("PRETRAINED")
    known |= {"PIL", "sklearn", "keras_incremental"}
    for path, module in imports_of(ROOT / "keras_incremental"):
        assert module in known, (path, module)


def test_every_requirement_is_imported_or_missing_from_one_that_needs_it():
    imported = {module for _, module in imports_of(ROOT / "keras_incremental")}
    indirect = required("INSTALL_REQUIRES") - {*imported, "pillow"}
    assert indirect == {"importlib_resources"}
    source = pathlib.Path(inspect.getfile(tensorflow_datasets.core))
    text = source.with_name("dataset_builder.py").read_text(encoding="utf-8")
    assert "import importlib_resources" in text
