"""BUILD names every file once, with the dependencies it really has."""

import ast
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "keras_incremental"
KINDS = ("filegroup", "py_binary", "py_library", "py_test")
RUNNER = "tests/pytest_main.py"
BUILDIFIER = "@bazel/buildifier@8.2.1"

# Modules whose distribution has another name. All others share it.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl_py",
    "google": "protobuf",
    "grpc": "grpcio",
    "sklearn": "scikit_learn",
    "tensorflow_serving": "tensorflow_serving_api",
}


class Build:
    """The targets of a BUILD file, which is read as the Python that it is.

    Attributes:
        targets: keyword arguments by target name; globs are resolved.
        kinds: the rule (`py_library`, ...) by target name.
    """

    def __init__(self, text):
        self.targets, self.kinds = {}, {}
        for statement in ast.parse(text).body:
            call = statement.value
            if not isinstance(call, ast.Call) or call.func.id not in KINDS:
                continue
            fields = {k.arg: _value(k.value) for k in call.keywords}
            name = fields["name"]
            assert name not in self.targets, f"{name} is there twice"
            self.targets[name] = fields
            self.kinds[name] = call.func.id

    def of_kind(self, kind):
        return [name for name, rule in self.kinds.items() if rule == kind]

    def owners(self, file):
        """Returns the libraries and binaries that a file is a source of."""
        return [
            name
            for name, fields in self.targets.items()
            if self.kinds[name] in ("py_library", "py_binary")
            and file in fields["srcs"]
        ]


def _value(node):
    """Evaluates a literal, a `glob` of a list of patterns, or a sum."""
    if isinstance(node, ast.BinOp):
        return _value(node.left) + _value(node.right)
    if isinstance(node, ast.Call):
        assert node.func.id == "glob"
        patterns = ast.literal_eval(node.args[0])
        return [
            str(path.relative_to(ROOT))
            for pattern in patterns
            for path in sorted(ROOT.glob(pattern))
        ]
    return ast.literal_eval(node)


def imported_modules(file):
    """Yields dotted names; `from a import b` yields `a.b`."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def label_of(module):
    """Returns the label that brings a module; `None` for Python's own."""
    top, *rest = module.split(".")
    if top == PACKAGE.name:
        part = rest[0] if rest else ""
        inside = (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file()
        return f":{part}" if part and inside else f":{PACKAGE.name}"
    if top in sys.stdlib_module_names:
        return None
    if (ROOT / "examples" / f"{top}.py").is_file():
        return f":{top}"
    return f"@pypi//{DISTRIBUTIONS.get(top, top)}"


def true_deps(name, files):
    """Returns the labels of all that a target's own files import."""
    labels = {label_of(module) for f in files for module in imported_modules(f)}
    return labels - {None, f":{name}"}


def loaded_by_test(name):
    """Returns the scripts among a test's data, which it loads by path."""
    data = BUILD.targets.get(name, {}).get("data", [])
    return [file for file in data if file.endswith(".py")]


def sources_of_test(file):
    """Returns a test file, the runner and the conftest files above it."""
    folders = pathlib.PurePath(file).parents
    conftests = [str(folder / "conftest.py") for folder in folders]
    return [file, RUNNER, *(c for c in conftests if (ROOT / c).is_file())]


def stanza_of_test(file):
    """Returns the `py_test` that a test file needs, as text."""
    sources = sources_of_test(file)
    loaded = loaded_by_test(file.removesuffix(".py"))
    deps = sorted(
        true_deps("", sources + loaded), key=lambda d: (d[0] == "@", d)
    )
    lines = [
        "py_test(",
        f'    name = "{file.removesuffix(".py")}",',
        "    srcs = [",
        *(f'        "{source}",' for source in sorted(sources)),
        "    ],",
        f'    args = ["{file}"],',
        f'    main = "{RUNNER}",',
        "    deps = [",
        *(f'        "{dep}",' for dep in deps),
        "    ],",
        ")",
    ]
    return "\n".join(lines)


def files_of(folder, pattern):
    return sorted(
        str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob(pattern)
    )


BUILD = Build((ROOT / "BUILD").read_text(encoding="utf-8"))
NOT_TESTS = [*BUILD.of_kind("py_library"), *BUILD.of_kind("py_binary")]
TEST_FILES = files_of("tests", "test_*.py")


@pytest.mark.parametrize("file", files_of("keras_incremental", "*.py"))
def test_every_package_file_is_in_the_library_of_its_folder(file):
    part = pathlib.PurePath(file).parts[1].removesuffix(".py")
    expected = PACKAGE.name if part == "__init__" else part
    assert BUILD.owners(file) == [expected]


@pytest.mark.parametrize("file", files_of("examples", "*.py"))
def test_every_example_is_a_binary(file):
    (owner,) = BUILD.owners(file)
    assert BUILD.kinds[owner] == "py_binary"


@pytest.mark.parametrize("name", NOT_TESTS)
def test_deps_of_a_library_or_binary_are_what_it_imports(name):
    fields = BUILD.targets[name]
    assert fields["srcs"], f"{name} has no files"
    assert set(fields.get("deps", [])) == true_deps(name, fields["srcs"])


@pytest.mark.parametrize("file", TEST_FILES)
def test_every_test_file_has_its_py_test(file):
    name = file.removesuffix(".py")
    wanted = f"BUILD needs (data aside):\n{stanza_of_test(file)}"
    assert BUILD.kinds.get(name) == "py_test", wanted
    fields = BUILD.targets[name]
    assert sorted(fields["srcs"]) == sorted(sources_of_test(file)), wanted
    files = fields["srcs"] + loaded_by_test(name)
    assert set(fields["deps"]) == true_deps("", files), wanted
    assert (fields["main"], fields["args"]) == (RUNNER, [file]), wanted


def test_every_py_test_has_its_file():
    names = {file.removesuffix(".py") for file in TEST_FILES}
    assert set(BUILD.of_kind("py_test")) == names


def test_every_label_exists():
    lock = (ROOT / "requirements_lock.txt").read_text(encoding="utf-8")
    locked = re.findall(r"^([\w.-]+)==", lock, flags=re.MULTILINE)
    known = {f":{name}" for name in BUILD.targets} | {
        f"@pypi//{name.lower().replace('-', '_')}" for name in locked
    }
    for name, fields in BUILD.targets.items():
        assert set(fields.get("deps", [])) <= known, name
        for item in fields.get("data", []):
            assert item in known or (ROOT / item).is_file(), (name, item)


def test_no_library_depends_on_itself_through_others():
    deps = {
        name: [dep[1:] for dep in BUILD.targets[name]["deps"] if dep[0] == ":"]
        for name in NOT_TESTS
        if "deps" in BUILD.targets[name]
    }

    def reached(name, path=()):
        assert name not in path, f"a cycle: {' -> '.join((*path, name))}"
        for dep in deps.get(name, []):
            reached(dep, (*path, name))

    for name in deps:
        reached(name)


def test_the_version_of_the_module_is_the_package_s():
    module = (ROOT / "MODULE.bazel").read_text(encoding="utf-8")
    version = (PACKAGE / "_version.py").read_text(encoding="utf-8")
    number = re.search(r'__version__ = "(.+)"', version).group(1)
    assert f'name = "keras_incremental",\n    version = "{number}"' in module


@pytest.mark.parametrize("file", ["BUILD", "MODULE.bazel"])
def test_buildifier_finds_nothing_to_change(file):
    command = buildifier()
    result = subprocess.run(
        [*command, "-mode=check", "-lint=warn", file],
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
