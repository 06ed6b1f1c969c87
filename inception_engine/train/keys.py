"""A dataclass as keys of a YAML file and as options: the key ``learning_rate`` is the option ``--learning-rate``.

Fields are made by ``key``. Values have the types of their fields: bool, int, float, str, a Literal, a tuple of them, or
one of these or None.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from inception_engine.train.errors import ConfigError

HELP, LEAST, MOST, FREE = "help", "least", "most", "free"  # in a field's metadata
NONE = "default"  # an option's text for None


def key(
    default: Any, text: str, *, least: float = -math.inf, most: float = math.inf, free: bool = False
) -> Any:
    """A field. ``least``, ``most``: bounds of numbers. ``free``: may change on resuming, as no
    result depends on it, or its last bits at most, or as the training could not go on otherwise."""
    return dataclasses.field(default=default, metadata={HELP: text, LEAST: least, MOST: most, FREE: free})


def check(owner: Any) -> None:
    """Types and bounds of every key of a dataclass. Raises ConfigError."""
    for field, kind in _fields(type(owner)):
        value = getattr(owner, field.name)
        _check_type(field.name, value, kind)
        low, high = field.metadata[LEAST], field.metadata[MOST]
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not low <= number <= high:
                bounds = f"from {low:g} on" if high == math.inf else f"from {low:g} to {high:g}"
                raise ConfigError(f"{field.name} is {_text(value)}, not {bounds}")


def from_document(owner: type, document: Mapping[Any, Any]) -> dict[str, Any]:
    """The keys of a YAML document, checked for their types. Raises ConfigError."""
    kinds = {field.name: kind for field, kind in _fields(owner)}
    for name in document:
        if name not in kinds:
            raise ConfigError(f"there is no key {name}; inception train --print-config shows all")
    return {name: _from_yaml(name, value, kinds[name]) for name, value in document.items()}


def differences(owner: type, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys of two documents of ``as_document`` that differ and are not free, in words."""
    free = {field.name for field, _ in _fields(owner) if field.metadata[FREE]}
    return [
        f"{name} was {_text(before.get(name))} and is {_text(now.get(name))}"
        for name in {**before, **now}
        if name not in free and before.get(name) != now.get(name)
    ]


def as_document(owner: Any) -> dict[str, Any]:
    """As JSON has it: tuples are lists."""
    document: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(owner)))
    return document


def as_yaml(owner: Any) -> str:
    """All keys with what they are, a line each. Values are JSON, which YAML reads, but for what is not ASCII: its pairs
    of surrogates are two characters to YAML, which has an escape for one beyond 16 bits."""
    return "".join(
        f"{field.name}: {_as_ascii(getattr(owner, field.name))}  # {field.metadata[HELP]}\n"
        for field in dataclasses.fields(owner)
    )


def _as_ascii(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[^ -~]", lambda match: _escape(ord(match[0])), text)


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"


def add_options(parser: argparse._ActionsContainer, owner: type) -> None:
    """An option for each key; those that are not given leave nothing in the namespace."""
    for field, kind in _fields(owner):
        options: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        options["help"] = f"{field.metadata[HELP]} (default: {_text(field.default)})".replace("%", "%%")
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = _Converter(field.name, kind)
            options["metavar"] = _metavar(kind)
        parser.add_argument(_flag(field.name), **options)


def given_options(arguments: argparse.Namespace, owner: type) -> dict[str, Any]:
    """The keys given as options of ``add_options``."""
    names = [field.name for field in dataclasses.fields(owner)]
    return {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}


class _Converter:
    """Text of an option to a value of a type. Raises ConfigError, which names the option."""

    def __init__(self, name: str, kind: Any) -> None:
        self.name = name
        self.kind = kind

    def __call__(self, text: str) -> Any:
        bare, optional = _bare(self.kind)
        if optional and text == NONE:
            return None
        try:
            if typing.get_origin(bare) is tuple:
                return tuple(typing.get_args(bare)[0](part) for part in text.split(","))
            if typing.get_origin(bare) is Literal:
                return next(choice for choice in typing.get_args(bare) if str(choice) == text)
            return bare(text)
        except (ValueError, StopIteration):
            raise ConfigError(f"{_flag(self.name)} is {text!r}, not {_words(self.kind)}") from None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _fields(owner: type) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(owner)
    return ((field, hints[field.name]) for field in dataclasses.fields(owner))


def _bare(kind: Any) -> tuple[Any, bool]:
    """A type without ``None``, and whether that was allowed."""
    if (
        isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    ):  # the latter of a Literal
        (inner,) = (part for part in typing.get_args(kind) if part is not type(None))
        return inner, True
    return kind, False


def _from_yaml(name: str, value: Any, kind: Any) -> Any:
    """YAML's lists are tuples here, and its 1e-4, which is a string to it, is a number."""
    bare, _ = _bare(kind)
    if bare is float and isinstance(value, str):
        return _Converter(name, kind)(value)
    if typing.get_origin(bare) is tuple and isinstance(value, list):
        value = tuple(_from_yaml(name, part, typing.get_args(bare)[0]) for part in value)
    _check_type(name, value, kind)
    return value


def _check_type(name: str, value: Any, kind: Any) -> None:
    bare, optional = _bare(kind)
    if value is None and optional:
        return
    origin = typing.get_origin(bare)
    if origin is tuple:
        good = isinstance(value, tuple) and len(value) > 0
        for part in value if good else ():
            _check_type(name, part, typing.get_args(bare)[0])
    elif bare is bool:
        good = isinstance(value, bool)
    elif isinstance(value, bool):
        good = False
    elif origin is Literal:
        good = value in typing.get_args(bare)
    elif bare is float:
        good = isinstance(value, int | float) and math.isfinite(value)
    else:
        good = isinstance(value, bare)
    if isinstance(value, str) and not _encodable(value):
        raise ConfigError(f"{name} is {value!r}, which is no text that a file could be named by")
    if not good:
        raise ConfigError(f"{name} is {_text(value)!r}, not {_words(kind)}")


def _encodable(text: str) -> bool:
    """Whether the system takes it, as a path: what is no Unicode may be the system's own, and nothing holds a NUL."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _metavar(kind: Any) -> str:
    bare, _ = _bare(kind)
    if typing.get_origin(bare) is tuple:
        one = _metavar(typing.get_args(bare)[0])
        return f"{one},{one}"
    if typing.get_origin(bare) is Literal:
        return "|".join(map(str, typing.get_args(bare)))
    return {int: "N", float: "X", str: "TEXT", bool: "true|false"}[bare]


def _words(kind: Any) -> str:
    """A kind in a message."""
    bare, _ = _bare(kind)
    if typing.get_origin(bare) is tuple:
        many = {int: "whole numbers", float: "finite numbers", str: "names"}
        return f"a list of {many[typing.get_args(bare)[0]]}, as {_metavar(kind)}"
    if typing.get_origin(bare) is Literal:
        return " or ".join(map(str, typing.get_args(bare)))
    return {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}[bare]


def _text(value: Any) -> str:
    if value is None:
        return NONE
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
