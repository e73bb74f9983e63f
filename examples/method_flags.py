"""A flag for each field of a method's dataclass.

`define` defines the flags of methods, of those of
`keras_incremental.methods.BY_NAME` for a start; `define_own` adds those of a
method of the user's own, `--method=my_module:MyMethod`. A flag that is not
given is `None`, and its field keeps the method's default.
"""

import dataclasses
import functools
import importlib
import inspect
import math
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence

from absl import flags

import keras_incremental as ki
from keras_incremental.methods import (
    BY_NAME,
    GradientNoise,
    Method,
    StepDecay,
)

DEFAULT = "eeil"
AUGMENTATIONS = {
    "none": lambda: None,
    "crop_flip": ki.augmentation.CropFlip,
    "eeil": ki.augmentation.EEILAugmentation,
    "eeil_stored": ki.augmentation.StoredEEILAugmentation,
    "eeil_imagenet": ki.augmentation.ImageNetEEILAugmentation,
}
NOISE = {
    "none": None,
    "text": GradientNoise(),
    "code": GradientNoise(is_variance=False),
}

OBJECTIVES = {
    "cross_entropy": ki.objectives.CrossEntropy(),
    "balanced_softmax": ki.objectives.BalancedSoftmax(),
}
SOLVERS = {
    "lda": ki.closed_form.LDA(),
    "nearest_mean": ki.closed_form.NearestClassMean(),
    "ridge": ki.closed_form.Ridge(),
}


@dataclasses.dataclass(frozen=True)
class Flag:
    """What defines a flag (`flags.DEFINE_integer`, ...), and its help."""

    define: Callable
    help: str


@dataclasses.dataclass(frozen=True)
class FieldFlags:
    """The flags of one field.

    Attributes:
        flags: By name.
        to_field: Returns the field's value from the method's default and the
            flags that are given, by name.
        to_flags: Returns the flags that stand for a value of the field.
    """

    flags: Mapping[str, Flag]
    to_field: Callable[[typing.Any, Mapping], typing.Any]
    to_flags: Callable[[typing.Any], Mapping]


# Conversions: from a field's name and its help to its flags.


def _plain(define: Callable) -> Callable[[str, str], FieldFlags]:
    """Returns the conversion of numbers, texts and truth values."""
    return lambda name, text: FieldFlags(
        {name: Flag(define, text)},
        to_field=lambda default, given: given[name],
        to_flags=lambda value: {name: value},
    )


def _one_of(
    values: Mapping[str, typing.Any], hint: str = ""
) -> Callable[[str, str], FieldFlags]:
    """Returns the conversion of objects that have a name."""
    define = functools.partial(flags.DEFINE_enum, enum_values=[*values])
    return lambda name, text: FieldFlags(
        {name: Flag(define, text + hint)},
        to_field=lambda default, given: values[given[name]],
        to_flags=lambda value: {
            name: next((k for k in values if values[k] == value), repr(value))
        },
    )


_noise = _one_of(
    NOISE,
    " `text`: as in the paper (a variance); `code`: as in the authors' code "
    "(a standard deviation).",
)


_DEFINE_AUGMENTATION = functools.partial(
    flags.DEFINE_enum, enum_values=sorted({*AUGMENTATIONS} - {"none"})
)


def _augmentation(name: str, text: str) -> FieldFlags:
    return FieldFlags(
        {name: Flag(_DEFINE_AUGMENTATION, text)},
        to_field=lambda default, given: AUGMENTATIONS[given[name]](),
        to_flags=lambda value: {
            name: next(
                (k for k, make in AUGMENTATIONS.items() if make() == value),
                repr(value),
            )
        },
    )


def _step_decay(name: str, text: str) -> FieldFlags:
    del name, text
    prefix = "learning_rate_decay_"

    def to_field(default, given):
        decay = default if isinstance(default, StepDecay) else StepDecay()
        changes = {k.removeprefix(prefix): v for k, v in given.items()}
        if "at" in changes:
            changes["at"] = tuple(map(int, changes["at"]))
        return dataclasses.replace(decay, **changes)

    def to_flags(value):
        if not isinstance(value, StepDecay):
            return {}
        at = value.at and ",".join(map(str, value.at))
        values = {**dataclasses.asdict(value), "at": at}
        return {prefix + k: v for k, v in values.items()}

    every = Flag(flags.DEFINE_integer, "Epochs between two decays.")
    factor = Flag(flags.DEFINE_float, "Each decay multiplies the rate by it.")
    at = Flag(flags.DEFINE_list, "Epochs to decay at, instead of every few.")
    return FieldFlags(
        {f"{prefix}every": every, f"{prefix}factor": factor, f"{prefix}at": at},
        to_field,
        to_flags,
    )


def _absolute_rate(name: str, text: str) -> FieldFlags:
    """The field is a fraction of --learning_rate, the flag a learning rate."""
    del text
    text = "First learning rate of balanced fine-tuning."
    compiled = flags.FLAGS["learning_rate"]
    return FieldFlags(
        {name: Flag(flags.DEFINE_float, text)},
        to_field=lambda default, given: given[name] / compiled.value,
        to_flags=lambda value: {name: round(value * compiled.value, 12)},
    )


_BY_FIELD_NAME = {
    "first_augment": _augmentation,
    "finetune_learning_rate": _absolute_rate,
    "learning_rate_factor": _step_decay,
}
_BY_TYPE = {
    bool: _plain(flags.DEFINE_bool),
    int: _plain(flags.DEFINE_integer),
    float: _plain(flags.DEFINE_float),
    str: _plain(flags.DEFINE_string),
    GradientNoise: _noise,
    ki.closed_form.Solver: _one_of(SOLVERS),
    ki.objectives.Objective: _one_of(OBJECTIVES),
}


def field_flags(method: Method) -> dict[str, FieldFlags]:
    """Returns the flags of a method by field.

    A field of a type without a conversion has no flag.

    Raises:
        ValueError: if an annotation is a name that does not exist.
    """
    try:
        hints = typing.get_type_hints(type(method))
    except NameError as error:
        raise ValueError(
            f"The annotations of {type(method).__name__} cannot be read: "
            f"{error}."
        ) from error
    helps = _args_of(type(method))
    found = {}
    for field in dataclasses.fields(method):
        convert = _BY_FIELD_NAME.get(
            field.name, _BY_TYPE.get(_without_none(hints[field.name]))
        )
        if convert is not None and field.init:
            found[field.name] = convert(field.name, helps.get(field.name, ""))
    return found


def _without_none(hint):
    """Returns the type `X` of an annotation `X | None`, others as they are."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    others = [t for t in typing.get_args(hint) if t is not types.NoneType]
    return others[0] if len(others) == 1 else hint


def _args_of(cls: type) -> dict[str, str]:
    """Returns the entries of the docstrings' `Args:`, base classes' as well."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        _, _, section = inspect.cleandoc(base.__doc__ or "").partition("Args:")
        name = ""
        for line in section.splitlines()[1:]:
            if line and not line.startswith(" "):
                break
            entry = re.match(r" {4}(\w+): *(.*)", line)
            if entry:
                name, texts[name] = entry.groups()
            elif line and name:
                texts[name] += f" {line.strip()}"
    return texts


# From the command line to a method.


def find(text: str) -> Method:
    """Returns the method that a value of --method names.

    Raises:
        ValueError: if there is none, or one that cannot have flags.
    """
    if text in BY_NAME:
        return BY_NAME[text]
    module, colon, name = text.partition(":")
    if not colon or not all(map(str.isidentifier, [*module.split("."), name])):
        raise ValueError(
            f"There is no method {text!r}. Expected one of "
            f"{', '.join(sorted(BY_NAME))}, or a class in a module of your "
            "own: my_module:MyMethod."
        )
    return _as_method(text, _attribute(module, name))


def _attribute(module: str, name: str):
    """Imports a module, the current folder's first, and takes a name of it."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, SyntaxError, AttributeError) as error:
        raise ValueError(
            f"--method={module}:{name} cannot be imported: {error}"
        ) from error


def _as_method(text: str, found) -> Method:
    """Returns a method with its defaults; refuses what has no flags."""
    cls = found if isinstance(found, type) else type(found)
    if not issubclass(cls, Method):
        raise ValueError(
            f"--method={text} is {found!r}; expected a subclass of "
            "keras_incremental.methods.Method."
        )
    if not dataclasses.is_dataclass(cls):
        raise ValueError(
            f"--method={text} is not a dataclass. Decorate the class with "
            "@dataclasses.dataclass(frozen=True)."
        )
    if isinstance(found, Method):
        return found
    try:
        return cls()
    except TypeError as error:  # an abstract method, a field without default
        raise ValueError(
            f"--method={text} cannot be made without arguments: {error}"
        ) from error


# From a method to flags, and back.


def _takers(methods: Mapping[str, Method]) -> dict[str, dict]:
    """Returns, by flag, the default of each method that takes it."""
    takers: dict[str, dict] = {}
    for method_name, method in methods.items():
        for field_name, field in field_flags(method).items():
            defaults = field.to_flags(getattr(method, field_name))
            for flag in field.flags:
                default = defaults.get(flag)
                takers.setdefault(flag, {})[method_name] = default
    return takers


_defined: dict[str, Callable] = {}


def define(methods: Mapping[str, Method]) -> None:
    """Defines the flags of methods by name; those defined before are shared.

    Raises:
        ValueError: if a field has the name of another flag.
    """
    takers = _takers(methods)
    for method_name, method in methods.items():
        for field_name, field in field_flags(method).items():
            for name, flag in field.flags.items():
                if name not in flags.FLAGS:
                    _defined[name] = flag.define
                    help_text = f"{flag.help} {_defaults(takers[name])}"
                    flag.define(name=name, default=None, help=help_text)
                elif _defined.get(name) is not flag.define:
                    raise ValueError(
                        f"--method={method_name} has a field {field_name!r}, "
                        f"and --{name} is another flag. Rename the field."
                    )


def _defaults(by_method: Mapping[str, typing.Any]) -> str:
    """Returns what a flag is by default, in words."""
    if len(set(by_method.values())) == 1:
        default = next(iter(by_method.values()))
        return f"(by default {default}; of {', '.join(by_method)})"
    each = [f"{default} of {name}" for name, default in by_method.items()]
    return f"(by default {', '.join(each)})"


def define_own(argv: Sequence[str]) -> None:
    """Defines the flags of the method that a command line names, if new.

    Args:
        argv: The command line, the script's name first; flagfiles are read.

    Raises:
        ValueError: if there is no such method, or a field has the name of
            another flag.
        flags.Error: for a flagfile that cannot be read.
    """
    first = flags.FlagValues()
    flags.DEFINE_string("method", DEFAULT, "", flag_values=first)
    first.set_gnu_getopt()  # values may stand apart from unknown flags
    first(argv, known_only=True)
    if first.method not in BY_NAME:
        define({first.method: find(first.method)})


def make(name: str) -> Method:
    """Returns the method of a name with the fields that the flags set.

    Raises:
        ValueError: for a flag that the method does not take, or a value that
            it refuses.
    """
    method = find(name)
    fields = field_flags(method)
    given = _given()
    taken = {flag for field in fields.values() for flag in field.flags}
    for flag in given.keys() - taken:
        takers = _takers(BY_NAME)[flag]
        raise ValueError(
            f"--{flag} belongs to --method={' or '.join(takers)}, and "
            f"--method={name} does not take it."
        )
    changes = {}
    for field_name, field in fields.items():
        values = {flag: given[flag] for flag in field.flags if flag in given}
        if values:
            default = getattr(method, field_name)
            changes[field_name] = field.to_field(default, values)
    return dataclasses.replace(method, **changes)


def _given() -> dict:
    """Returns the values of the flags of methods that are given."""
    given = {
        name: flags.FLAGS[name].value
        for name in _defined
        if name in flags.FLAGS and flags.FLAGS[name].value is not None
    }
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name}={value}; expected a finite number.")
    return given


def settings(method: Method) -> dict:
    """Returns the flags that stand for a method's fields, given or not."""
    of_fields: dict = {}
    for name, field in field_flags(method).items():
        of_fields |= field.to_flags(getattr(method, name))
    return of_fields | _given()
