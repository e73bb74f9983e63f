"""The architecture: who imports whom, and what the package never does."""

import ast
import functools
import importlib
import pathlib

PACKAGE = pathlib.Path(__file__).parents[1] / "keras_incremental"

# A module imports only modules of a lower rank, or of its own folder. The
# package's own __init__.py, which re-exports, is exempt.
RANK = {
    "_backend": 0,
    "_types": 0,
    "_version": 0,
    "distribution": 0,
    "archives": 0,
    "closed_form": 0,
    "files": 0,
    "labels": 0,
    "layers": 0,
    "optional": 0,
    "progress": 0,
    "augmentation": 1,
    "backbones": 1,
    "graphs": 1,
    "locks": 1,
    "losses": 1,
    "metrics": 1,
    "model_files": 1,
    "samples": 1,
    "scenarios": 1,
    "score_rules": 1,
    "backups": 2,
    "networks": 2,
    "objectives": 2,
    "reports": 2,
    "exemplars": 3,
    "models": 3,
    "cost": 4,
    "export": 4,
    "methods": 4,
    "predictions": 4,
    "training": 5,
    "callbacks": 6,
    "hub": 7,
    "sharing": 7,
    "trackers": 7,
    "experiment": 8,
}
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = [path for path in FILES if path.name == "__init__.py"]
RANKED = [path for path in FILES if path != PACKAGE / "__init__.py"]
# Unpickles one file of known checksum, and refuses all classes but four.
UNPICKLES = PACKAGE / "backbones" / "torch_file.py"
NUMPY_ONLY = [
    *PACKAGE.glob("metrics/*.py"),
    PACKAGE / "exemplars" / "selection.py",
]
MOST_LINES = 400
MOST_METHODS = 25
MOST_LINES_OF_A_FUNCTION = 50


def name_of(path):
    return str(path.relative_to(PACKAGE))


def part_of(path):
    """Returns the folder or module of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
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


def definitions(tree, *kinds):
    return (node for node in ast.walk(tree) if isinstance(node, kinds))


def public_without_docstring(tree):
    """Yields the public names of a module's top level without a docstring."""
    if not ast.get_docstring(tree):
        yield "the module"
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in tree.body:
        public = isinstance(node, kinds) and not node.name.startswith("_")
        if public and not ast.get_docstring(node):
            yield node.name


def too_long(tree):
    """Yields the functions of too many lines, docstring aside."""
    for node in definitions(tree, ast.FunctionDef, ast.AsyncFunctionDef):
        lines = node.end_lineno - node.lineno + 1
        if ast.get_docstring(node):
            docstring = node.body[0]
            lines -= docstring.end_lineno - docstring.lineno + 1
        if lines > MOST_LINES_OF_A_FUNCTION:
            yield f"{node.name} has {lines} lines"


def too_many_methods(tree):
    """Yields the classes that define too many methods and properties."""
    for node in definitions(tree, ast.ClassDef):
        names = {f.name for f in node.body if isinstance(f, ast.FunctionDef)}
        if len(names) > MOST_METHODS:
            yield f"{node.name} has {len(names)} methods"


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


def imports_of_no_lower_rank(path):
    """Yields what a file imports from its own rank or a higher one."""
    here = part_of(path)
    for part in sorted(imported_parts(parse(path)) - {here}):
        if RANK.get(part, len(RANK)) >= RANK[here]:
            yield f"imports {part} ({RANK.get(part)}), from {RANK[here]}"


def check(rule, files=FILES):
    """Fails with all that a rule finds in the files."""
    found = [
        f"{name_of(path)}: {what}" for path in files for what in rule(path)
    ]
    assert not found, "\n" + "\n".join(found)


def of_tree(rule):
    return lambda path: rule(parse(path))


def test_imports_only_lower_ranks():
    check(imports_of_no_lower_rank, RANKED)


def test_imports_are_absolute():
    def relative(tree):
        return [name for name in imported_modules(tree) if name[0] == "."]

    check(of_tree(relative))


def test_numpy_code_imports_neither_tensorflow_nor_keras():
    def heavy(tree):
        return third_party(tree) & {"tensorflow", "keras"}

    assert len(NUMPY_ONLY) > 3
    check(of_tree(heavy), NUMPY_ONLY)


def test_nothing_forbidden_is_used():
    check(of_tree(forbidden_uses), [f for f in FILES if f != UNPICKLES])


def test_the_one_file_that_unpickles_does_so_by_its_own_class_alone():
    tree = parse(UNPICKLES)
    assert [what for _, what in forbidden_uses(tree)] == ["pickle"]
    uses = [
        node.attr
        for node in definitions(tree, ast.Attribute)
        if isinstance(node.value, ast.Name) and node.value.id == "pickle"
    ]
    assert sorted(uses) == ["Unpickler", "UnpicklingError"]


FORBIDDEN = {
    "assert x": "assert",
    "print(x)": "print",
    "eval(x)": "eval",
    "exec(x)": "exec",
    "keras.layers.Lambda(x)": "Lambda",
    "from keras.layers import Lambda\nLambda(x)": "Lambda",
    "np.load(x, allow_pickle=True)": "allow_pickle",
    "def f():\n    import pickle": "pickle",
}


def test_the_search_for_forbidden_uses_finds_each():
    found = {
        source: [name for _, name in forbidden_uses(ast.parse(source))]
        for source in FORBIDDEN
    }
    assert found == {source: [what] for source, what in FORBIDDEN.items()}


def test_public_modules_classes_and_functions_have_docstrings():
    check(of_tree(public_without_docstring))


def test_no_file_is_too_long():
    def lines(path):
        number = len(path.read_text(encoding="utf-8").splitlines())
        return [number] if number > MOST_LINES else []

    check(lines)


def test_no_function_is_too_long():
    check(of_tree(too_long))


def test_no_class_has_too_many_methods():
    check(of_tree(too_many_methods))


def test_the_searches_for_too_much_find_it():
    body = "\n".join(49 * ["        x = 1"])
    text = "class A:\n    def f(self):\n        'Says.'\n" + body
    assert not list(too_long(ast.parse(text)))
    longer = ast.parse(text + "\n        x = 1")
    assert list(too_long(longer)) == ["f has 51 lines"]
    methods = [f"    def f{i}(self): pass" for i in range(26)]
    at_most = ast.parse("\n".join(["class A:", *methods[:25]]))
    assert not list(too_many_methods(at_most))
    too_many = ast.parse("\n".join(["class A:", *methods]))
    assert list(too_many_methods(too_many)) == ["A has 26 methods"]
    assert list(public_without_docstring(ast.parse("def f(): pass"))) == [
        "the module",
        "f",
    ]


def wrong_names(path):
    """Yields what is wrong with the `__all__` of a folder."""
    dotted = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
    module = importlib.import_module(dotted)
    names = module.__all__
    if not names or len(set(names)) != len(names):
        yield f"__all__ is {names}"
    yield from (name for name in names if not hasattr(module, name))


def test_every_folder_lists_names_that_exist():
    check(wrong_names, FOLDERS)


def test_every_folder_is_a_package():
    folders = {path.parent for path in FILES}
    assert folders == {path.parent for path in FOLDERS}


def test_no_file_is_called_utils():
    vague = {"util", "utils", "helper", "helpers", "common", "misc"}
    names = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    assert not names & vague
