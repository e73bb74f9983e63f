"""Public names say which types they take and return."""

import inspect
import pathlib
import subprocess
import sys
import types

import pytest

import keras_incremental as ki

ROOT = pathlib.Path(__file__).parents[2]


def is_ours(thing):
    return thing.__module__.split(".")[0] == ki.__name__


def public_objects():
    """Yields name and object of all public classes and functions."""
    for name in ki.__all__:
        thing = getattr(ki, name)
        if not isinstance(thing, types.ModuleType):
            yield name, thing
            continue
        for member in thing.__all__:
            yield f"{name}.{member}", getattr(thing, member)


def methods_of(kind):
    """Yields the methods and properties that the package itself names."""
    bases = [base for base in kind.__mro__ if is_ours(base)]
    of_others = {
        name
        for base in kind.__mro__
        if not is_ours(base)
        for name in vars(base)
    }
    named = {name: v for base in bases[::-1] for name, v in vars(base).items()}
    for name, value in named.items():
        if name.startswith("_") or name in of_others:
            continue
        value = getattr(value, "fget", getattr(value, "__func__", value))
        if inspect.isfunction(value) and value.__doc__:
            yield name, value
    if inspect.isfunction(vars(kind).get("__init__")):
        yield "__init__", kind.__init__


def untyped(function):
    """Returns what of a function has no type."""
    signature = inspect.signature(function)
    found = [
        parameter.name
        for parameter in list(signature.parameters.values())
        if parameter.annotation is parameter.empty
        and parameter.name not in ("self", "cls")
    ]
    if signature.return_annotation is signature.empty:
        found += ["return"] if function.__name__ != "__init__" else []
    return found


def all_untyped():
    """Returns the names of public functions, with what has no type."""
    missing = {}
    for name, thing in public_objects():
        functions = {"": thing} if inspect.isfunction(thing) else {}
        if inspect.isclass(thing) and is_ours(thing):
            functions = dict(methods_of(thing))
        for method, function in functions.items():
            if is_ours(function) and (without := untyped(function)):
                missing[f"{name}.{method}".rstrip(".")] = without
    return missing


def test_public_names_have_types():
    assert not all_untyped()


def test_what_has_no_type_is_found():
    def function(x, y: int, *, z=1) -> int:
        return x

    assert untyped(function) == ["x", "z"]
    assert untyped(lambda: 1) == ["return"]


def test_the_package_says_that_it_has_types():
    assert (ROOT / "keras_incremental" / "py.typed").is_file()


@pytest.mark.slow
def test_typical_use_passes_a_type_checker(tmp_path):
    command = [sys.executable, "-m", "mypy", f"--cache-dir={tmp_path}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
