"""BUILD is what the imports say; `--write` writes it anew.

    python tests/test_build.py --write

One library for each folder or module of the package, one binary for each
example and one test for each folder of tests, with the labels of all that the
target's own files import.
"""

import ast
import functools
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "keras_incremental"
BUILDIFIER = "@bazel/buildifier@8.2.1"
RUNNER = "tests/pytest_main.py"

# Modules whose distribution has another name. All others share it.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl_py",
    "google": "protobuf",
    "grpc": "grpcio",
    "sklearn": "scikit_learn",
    "tensorflow_serving": "tensorflow_serving_api",
}
# Imported where they are installed; requirements_lock.txt leaves them out.
OPTIONAL = {"torch"}

HEADER = '''\
"""Targets of keras_incremental, written by tests/test_build.py --write."""

load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")

package(default_visibility = ["//visibility:public"])

filegroup(
    name = "pytest_main",
    srcs = [
        "tests/conftest.py",
        "tests/pytest_main.py",
    ],
)

filegroup(
    name = "sources",
    srcs = glob([
        "*",
        ".ci/*",
        "benchmarks/*",
        "colab/*",
        "docs/**",
        "examples/**",
        "keras_incremental/**",
        "tests/**",
    ]),
)'''


def relative(path):
    return path.relative_to(ROOT).as_posix()


def python_files(folder):
    return sorted(relative(path) for path in folder.glob("*.py"))


def imported_modules(file):
    """Yields dotted names; `from a import b` yields `a.b`."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def label_of(module, beside):
    """Returns the label that brings a module.

    `None` stands for one of Python's own, one of the folder `beside`, and an
    optional one.
    """
    top, *rest = module.split(".")
    if top == PACKAGE.name:
        part = rest[0] if rest else ""
        inside = (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file()
        return f":{part}" if part and inside else f":{PACKAGE.name}"
    if (ROOT / "examples" / f"{top}.py").is_file():
        return f":{top}"
    own = top in sys.stdlib_module_names or (beside / f"{top}.py").is_file()
    if own or top in OPTIONAL:
        return None
    return f"@pypi//{DISTRIBUTIONS.get(top, top)}"


def deps_of(files):
    """Returns the labels of all that the files import, in their order."""
    labels = {
        label_of(module, (ROOT / file).parent)
        for file in files
        for module in imported_modules(file)
    }
    return sorted(labels - {None}, key=lambda label: (label[0] == "@", label))


def listed(items):
    """Returns a list as BUILD files write it."""
    if len(items) < 2:
        return "[" + "".join(f'"{item}"' for item in items) + "]"
    return "\n".join(["[", *(f'        "{item}",' for item in items), "    ]"])


def target(rule, name, srcs, **lists):
    """Returns a target as text; empty lists are left out."""
    fields = [f'    name = "{name}",', f"    srcs = {srcs},"]
    for key, value in lists.items():
        text = f'"{value}"' if isinstance(value, str) else listed(value)
        fields += [f"    {key} = {text},"] if value else []
    return "\n".join([f"{rule}(", *fields, ")"])


def library(part):
    """Returns the library of a folder or module of the package."""
    if part.is_dir():
        files, srcs = python_files(part), f'glob(["{relative(part)}/*.py"])'
    else:
        files, srcs = [relative(part)], listed([relative(part)])
    name = PACKAGE.name if part.stem == "__init__" else part.stem
    deps = [dep for dep in deps_of(files) if dep != f":{name}"]
    return target("py_library", name, srcs, deps=deps)


def binary(file):
    """Returns the binary of an example."""
    name = pathlib.PurePath(file).stem
    return target("py_binary", name, listed([file]), deps=deps_of([file]))


def scripts_in(text):
    """Yields the examples and benchmarks that a text names."""
    for folder in ("examples", "benchmarks"):
        for file in python_files(ROOT / folder):
            if f'"{pathlib.PurePath(file).name}"' in text:
                yield file


def target_of_tests(folder):
    """Returns the test of a folder of tests.

    Tests that look for the root of the repository get its sources as data, and
    the labels of the scripts that they name.
    """
    files, name = python_files(folder), relative(folder)
    text = "".join((ROOT / f).read_text(encoding="utf-8") for f in files)
    at_root = "parents[" in text
    if folder == ROOT / "tests":
        args = [file for file in files if "/test_" in file]
        shared, srcs = [], f'glob(["{name}/*.py"])'
    else:
        args, shared = [name], ["tests/conftest.py", RUNNER]
        srcs = f'[":pytest_main"] + glob(["{name}/*.py"])'
    scripts = scripts_in(text) if at_root else []
    return target(
        "py_test",
        f"{name}/tests",
        srcs,
        args=args,
        data=[":sources"] if at_root else [],
        main=RUNNER,
        deps=deps_of([*files, *shared, *scripts]),
    )


@functools.cache
def expected_build():
    """Returns the text of BUILD."""
    parts = [p for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()]
    tests = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    stanzas = [
        HEADER,
        *(library(part) for part in sorted([*parts, *PACKAGE.glob("*.py")])),
        *(binary(file) for file in python_files(ROOT / "examples")),
        *(target_of_tests(folder) for folder in sorted(tests)),
    ]
    return "\n\n".join(stanzas) + "\n"


def targets(text):
    """Returns the text of each target by its name."""
    return {
        name: stanza
        for stanza in text.split("\n\n")
        for name in re.findall(r'^    name = "(.+)",$', stanza, re.MULTILINE)
    }


def labels_in(stanza):
    return re.findall(r'"([:@][^"]+)"', stanza)


def test_build_has_one_target_a_folder_with_its_true_deps():
    found = (ROOT / "BUILD").read_text(encoding="utf-8")
    there, wanted = targets(found), targets(expected_build())
    different = [text for n, text in wanted.items() if there.get(n) != text]
    command = "python tests/test_build.py --write"
    assert not different, f"{command} writes:\n" + "\n\n".join(different)
    assert not set(there) - set(wanted), f"{command} deletes these"
    assert found == expected_build(), f"only the order differs: {command}"


def test_a_target_lists_what_its_files_import(tmp_path, monkeypatch):
    (tmp_path / "examples").mkdir()
    package = tmp_path / "keras_incremental"
    (package / "models").mkdir(parents=True)
    (package / "labels.py").write_text("import json, sklearn.base\n")
    (package / "models" / "a.py").write_text(
        "def f():\n    from keras_incremental import labels\n"
        "    import absl, keras_incremental.models.b, keras_incremental.c\n"
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "PACKAGE", package)
    assert library(package / "labels.py") == (
        'py_library(\n    name = "labels",\n'
        '    srcs = ["keras_incremental/labels.py"],\n'
        '    deps = ["@pypi//scikit_learn"],\n)'
    )
    assert library(package / "models") == (
        'py_library(\n    name = "models",\n'
        '    srcs = glob(["keras_incremental/models/*.py"]),\n'
        '    deps = [\n        ":keras_incremental",\n        ":labels",\n'
        '        "@pypi//absl_py",\n    ],\n)'
    )


def test_every_label_exists():
    lock = (ROOT / "requirements_lock.txt").read_text(encoding="utf-8")
    locked = re.findall(r"^([\w.-]+)==", lock, flags=re.MULTILINE)
    stanzas = targets(expected_build())
    known = {f":{name}" for name in stanzas} | {
        f"@pypi//{name.lower().replace('-', '_')}" for name in locked
    }
    unknown = {
        name: set(labels_in(stanza)) - known for name, stanza in stanzas.items()
    }
    assert not {name: labels for name, labels in unknown.items() if labels}


def test_no_target_depends_on_itself_through_others():
    stanzas = targets(expected_build())

    def reached(name, path=()):
        assert name not in path, f"a cycle: {' -> '.join((*path, name))}"
        for label in labels_in(stanzas[name]):
            if label[0] == ":":
                reached(label[1:], (*path, name))

    for name in stanzas:
        reached(name)


def test_the_version_of_the_module_is_the_package_s():
    module = (ROOT / "MODULE.bazel").read_text(encoding="utf-8")
    version = (PACKAGE / "_version.py").read_text(encoding="utf-8")
    number = re.search(r'__version__ = "(.+)"', version).group(1)
    assert f'name = "keras_incremental",\n    version = "{number}"' in module


@pytest.mark.slow
def test_buildifier_finds_nothing_to_change():
    result = subprocess.run(
        [*buildifier(), "-mode=check", "-lint=warn", "BUILD", "MODULE.bazel"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def buildifier():
    """Returns the command of buildifier, or skips the test."""
    if shutil.which("buildifier"):
        return ["buildifier"]
    if not shutil.which("npx"):
        pytest.skip("neither buildifier nor npx is installed")
    command = ["npx", "--yes", BUILDIFIER]
    try:
        subprocess.run(
            [*command, "--version"],
            capture_output=True,
            check=True,
            timeout=120,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npx cannot get {BUILDIFIER}: {error}")
    return command


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {sys.argv[0]} --write")
    (ROOT / "BUILD").write_text(expected_build(), encoding="utf-8")
