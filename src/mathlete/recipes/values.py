"""Whether a value of a TOML file is of the type that a field of a dataclass has. Knows types; no names of keys."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

_WORDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    types.NoneType: "left out",
}


def fits(value: object, hint: Any) -> bool:
    """Whether a value of a TOML file can stand for a field with this type; a list stands for a tuple."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return is_plain(value)
    if origin in (Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments and not isinstance(value, bool)
    if origin in (tuple, list):
        return isinstance(value, list) and all(fits(item, arguments[0]) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict) and is_plain(value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (float, int) if hint is float else hint)


def words_for(hint: Any) -> str:
    """What a field of this type takes, for a person."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(words_for(argument) for argument in arguments if argument is not types.NoneType)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (tuple, list):
        example = ', such as ["code"]' if arguments[0] is str else ""
        return f"a list, each of it {words_for(arguments[0])}{example}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a table, such as { method = ... }"
    return _WORDS.get(hint, "a plain value")


def is_plain(value: object) -> bool:
    """Whether a value can be kept in a trace: TOML's dates and times, infinities and nan cannot."""
    if isinstance(value, dict):
        return all(is_plain(item) for item in value.values())
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    if isinstance(value, float):
        return value - value == 0
    return isinstance(value, str | int)
