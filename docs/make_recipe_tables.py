"""Writes the tables of a recipe's keys into docs/recipes.md, from the dataclasses that they fill. For `make docs`.

usage: make_recipe_tables.py [DOCUMENT]
"""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from mathlete.planning.hardware import Hardware, known_accelerators
from mathlete.recipes import loading
from mathlete.recipes.recipe import ContestSpec, command_defaults
from mathlete.run_config import EngineSpec, RunConfig, settings_of_engine, settings_type
from mathlete.triad.policies import TRIAD_CHECKS, TRIAD_SECOND_ROUND

DOCUMENT = Path(__file__).with_name("recipes.md")
_WORDS: Mapping[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text"}
_SECONDS = {"budget": "budget_s", "code_timeout": "code_timeout_s", "reserve": "reserve_s"}
# Of keys that take a name, where the names are.
_KNOWN = {
    "scorer": "a name of the table below",
    "accelerator": "a name of the list below",
    "selector": "a name of [selection.md](selection.md)",
    "stop": "a name of [selection.md](selection.md)",
}

_TURNS = "[turn-formats.md](turn-formats.md)"
# What a reader of the document is told instead of what the class says to a reader of the code.
_INSTEAD = {
    "policy": "how a problem is worked on: [triad.md](triad.md), and below",
    "selector": "the rule that chooses the answer",
    "stop": "the rule that says when a vote is settled",
    "scorer": "what the policy `pipeline` scores attempts by",
    "turn_format": f"how the model takes its turns: {_TURNS}",
    "reasoning_effort": f"of gpt-oss models: {_TURNS}",
    "tools": f"that the model is told of: {_TURNS}",
    "accelerator": "the GPU, whose memory and speed `mathlete plan` knows",
}
_WITH_TRIAD = {"checks": TRIAD_CHECKS, "second_round": TRIAD_SECOND_ROUND}


def tables() -> dict[str, str]:
    """Each table by the name that its markers have in the document."""
    common = {
        name: hint for name, hint in loading.engine_keys("vllm").items() if name not in settings_of_engine("vllm")
    }
    made = {"engines": _table(common, EngineSpec)}
    for kind in ("ryanstream", "vllm", "openai_server"):
        own = {name: hint for name, hint in loading.engine_keys(kind).items() if name in settings_of_engine(kind)}
        made[kind] = _table(own, settings_type(kind), command_defaults("solve"))
    of_engine = {"model", *settings_of_engine("ryanstream")}
    run = {name: hint for name, hint in loading.run_keys().items() if name not in of_engine}
    made["run"] = _table(run, RunConfig, command_defaults("solve"))
    made["hardware"] = _table(loading.hardware_keys(), Hardware)
    made["contest"] = _table(loading.contest_keys(), ContestSpec)
    made["accelerators"] = ", ".join(f"`{name}`" for name in known_accelerators())
    return made


def filled(text: str) -> str:
    """The document with its tables as they are now. Raises `SystemExit` when a marker is missing."""
    for name, content in tables().items():
        begin, end = f"<!-- {name}: made by make_recipe_tables.py -->", f"<!-- end of {name} -->"
        if begin not in text or end not in text:
            raise SystemExit(f"the markers of {name!r} are missing: {begin} and {end}")
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"
    return text


def _table(keys: Mapping[str, Any], owner: type, defaults: Mapping[str, Any] | None = None) -> str:
    told = described(owner)
    given = {field.name: field for field in fields(owner)}
    lines = ["| key | value | where left out | what it is |", "|---|---|---|---|"]
    for key, hint in keys.items():
        name = _SECONDS.get(key, key)
        default = (defaults or {}).get(name, given[name].default)
        value = "duration" if key in _SECONDS else _KNOWN.get(key) or _value(hint)
        shown = _duration(default) if key in _SECONDS else _default(default)
        if key in _WITH_TRIAD:
            shown += f"; `triad`: {_default(_WITH_TRIAD[key])}"
        what = _INSTEAD.get(key, told[name].rstrip("."))
        lines.append(f"| `{key}` | {value} | {shown} | {what.replace('None for', 'left out:')} |")
    return "\n".join(lines)


def described(owner: type) -> dict[str, str]:
    """What a dataclass's docstring says of each attribute, on one line."""
    attributes = (owner.__doc__ or "").partition("Attributes:")[2]
    found = re.findall(r"^        (\w+): (.*(?:\n            .*)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()).replace("|", r"\|") for name, text in found}


def _value(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _value(next(argument for argument in arguments if argument is not types.NoneType))
    if origin is Literal:
        return ", ".join(f"`{item}`" for item in arguments)
    if origin is tuple:
        return f"list of {_value(arguments[0])}"
    return _WORDS.get(hint, "table")


def _default(value: Any) -> str:
    if value is MISSING:
        return "must be there"
    if value is None:
        return "-"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def _duration(seconds: float | None) -> str:
    if not isinstance(seconds, float):
        return "-"
    return f"`{seconds / 60:g}m`" if seconds >= 60 else f"`{seconds:g}s`"


def main(arguments: Sequence[str]) -> None:
    """Put the tables in place."""
    document = Path(arguments[0]) if arguments else DOCUMENT
    document.write_text(filled(document.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
