"""The architecture: who imports whom, and what the package never does."""

import ast
import importlib
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "keras_incremental"

# A module imports only modules of a lower rank, or of its own folder. The
# package's own __init__.py, which re-exports, is exempt.
RANK = {
    "_backend": 0,
    "_version": 0,
    "distribution": 0,
    "files": 0,
    "labels": 0,
    "layers": 0,
    "augmentation": 1,
    "backbones": 1,
    "backups": 1,
    "losses": 1,
    "metrics": 1,
    "model_files": 1,
    "networks": 1,
    "samples": 1,
    "scenarios": 1,
    "exemplars": 2,
    "models": 2,
    "reports": 2,
    "cost": 3,
    "export": 3,
    "methods": 3,
    "callbacks": 4,
    "experiment": 5,
    "sharing": 5,
}
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = [path for path in FILES if path.name == "__init__.py"]
RANKED = [path for path in FILES if path != PACKAGE / "__init__.py"]

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: _id(path))
every_ranked_file = pytest.mark.parametrize(
    "path", RANKED, ids=lambda path: _id(path)
)


def _id(path):
    return str(path.relative_to(PACKAGE))


def part_of(path):
    """Returns the folder or module of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported_modules(tree):
    """Yields the dotted name of everything that is imported, anywhere.

    `from a import b` yields `a.b`: b may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            for name in node.names:
                yield f"{dots}{node.module or ''}.{name.name}"


def imported_parts(tree):
    """Returns the parts of the package that a file imports."""
    dotted = [name.split(".") for name in imported_modules(tree)]
    return {
        parts[1] if len(parts) > 1 else "the package itself"
        for parts in dotted
        if parts[0] == PACKAGE.name
    }


def third_party(tree):
    return {name.split(".")[0] for name in imported_modules(tree)}


def public_definitions(tree):
    """Yields the public classes and functions of a module's top level."""
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node


def forbidden_uses(tree):
    """Yields `(line, what)` for each thing that the package never does."""
    for node in ast.walk(tree):
        match node:
            case ast.Assert():
                yield node.lineno, "assert"
            case ast.Call(func=ast.Name(id="print" | "eval" | "exec" as name)):
                yield node.lineno, name
            case ast.Attribute(attr="Lambda") | ast.Name(id="Lambda"):
                yield node.lineno, "Lambda"
            case ast.keyword(arg="allow_pickle", value=ast.Constant(True)):
                yield node.value.lineno, "allow_pickle"
    modules = {"pickle", "cloudpickle", "dill", "shelve", "marshal"}
    for name in sorted(third_party(tree) & modules):
        yield 1, name


def test_every_part_of_the_package_has_a_rank_and_every_rank_a_part():
    assert {part_of(path) for path in RANKED} == set(RANK)


@every_ranked_file
def test_imports_only_lower_ranks(path):
    here = part_of(path)
    for part in imported_parts(parse(path)) - {here}:
        assert part in RANK, f"{_id(path)} imports {part}"
        assert RANK[part] < RANK[here], (
            f"{_id(path)} (rank {RANK[here]}) imports {part} "
            f"(rank {RANK[part]})"
        )


@every_file
def test_imports_are_absolute(path):
    relative = [n for n in imported_modules(parse(path)) if n[0] == "."]
    assert not relative


@pytest.mark.parametrize(
    "path",
    [*PACKAGE.glob("metrics/*.py"), PACKAGE / "exemplars" / "selection.py"],
    ids=lambda path: _id(path),
)
def test_numpy_code_imports_neither_tensorflow_nor_keras(path):
    assert not third_party(parse(path)) & {"tensorflow", "keras"}


@every_file
def test_nothing_forbidden_is_used(path):
    found = [f"{_id(path)}:{line} {what}" for line, what in uses(path)]
    assert not found


def uses(path):
    return forbidden_uses(parse(path))


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("assert x", "assert"),
        ("print(x)", "print"),
        ("eval(x)", "eval"),
        ("exec(x)", "exec"),
        ("keras.layers.Lambda(x)", "Lambda"),
        ("from keras.layers import Lambda\nLambda(x)", "Lambda"),
        ("np.load(x, allow_pickle=True)", "allow_pickle"),
        ("def f():\n    import pickle", "pickle"),
    ],
)
def test_the_search_for_forbidden_uses_finds_each(source, what):
    assert [name for _, name in forbidden_uses(ast.parse(source))] == [what]


@every_file
def test_public_modules_classes_and_functions_have_docstrings(path):
    tree = parse(path)
    assert ast.get_docstring(tree), f"{_id(path)} has no docstring"
    without = [
        node.name
        for node in public_definitions(tree)
        if not ast.get_docstring(node)
    ]
    assert not without


@pytest.mark.parametrize("path", FOLDERS, ids=lambda path: _id(path))
def test_every_folder_lists_names_that_exist(path):
    dotted = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
    module = importlib.import_module(dotted)
    assert module.__all__
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing
    assert len(set(module.__all__)) == len(module.__all__)


def test_every_folder_is_a_package():
    folders = {path.parent for path in FILES}
    assert folders == {path.parent for path in FOLDERS}


def test_no_file_is_called_utils():
    vague = {"util", "utils", "helper", "helpers", "common", "misc"}
    names = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    assert not names & vague
