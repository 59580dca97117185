"""Mapping files: which columns or keys of a foreign file hold what. TOML, read strictly.

Knows the form of a mapping and the presets in `mappings/`. Does not know the files that it is applied to
(`mapped_rows.py` applies it).

A place in a row is a path of keys and positions with dots between them, "output.choices.0.message"; `*` is the first
entry of a list or an object, whatever its name. A key that has dots in it is found too. Several places are tried in
turn. What begins with "@" is no place: "@text" (an attempt's answer stands in its text), "@file" (the file's name),
"@row" (the file's name and the row), "@statement" (made from the statement, the same in every file).
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from mathlete.core.errors import InputError

Layout = Literal["rows", "lists"]
Scalar = str | int | float | bool

PROBLEM_NAMES = ("id", "statement", "gold", "group")
ATTEMPT_NAMES = (
    "answer", "correct", "tokens", "seconds", "model", "text", "features", "pillar", "seed", "temperature", "failure",
    "answer_source", "discarded", "round", "about", "evidence",
)  # fmt: skip
_VALUE_NAMES = ("right", "wrong", "no_answer")
_TOP_NAMES = (
    "description", "layout", "files", "rows", "members", "attempts", "one_of", "where", "problem", "attempt",
    "features", "values",
)  # fmt: skip
_SPECIAL = {"id": ("@row", "@statement"), "group": ("@file",), "model": ("@file",), "answer": ("@text",)}
_MAX_BYTES = 1 << 20

Places = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordingMapping:
    """What the columns or keys of a foreign file mean.

    Attributes:
        name: of the preset, or the mapping file's.
        description: for a person.
        layout: "rows" for one attempt a row, rows of one problem id being its attempts wherever they stand; "lists"
            for one problem a row.
        files: pattern of the names of a folder's files that are read; all that can be read when None.
        rows: of a .json file, which is one document: place of the list of its rows.
        members: of an archive: pattern of the names of its members, each one row.
        attempts: with "lists": place of the list of attempts; a place in `attempt` and `features` is then one in an
            entry, or in the row when it begins with "/". An entry that is no object is the attempt's text. None when
            each of `attempt` and `features` is a list of its own, all of one length.
        one_of: place of what tells views of the same attempts apart, such as the name of a filter: only rows that have
            there what the file's first row has are read.
        where: places and what must stand there, for a row to be read at all.
        problem: places of `PROBLEM_NAMES`.
        attempt: places of `ATTEMPT_NAMES`.
        features: places of numbers, by the name that the feature gets.
        right: what `attempt.correct` says of a right answer, beside true, 1 and "true".
        wrong: likewise, beside false, 0 and "false".
        no_answer: texts in the place of an answer that mean that there is none.
    """

    name: str
    description: str = ""
    layout: Layout = "rows"
    files: str | None = None
    rows: str | None = None
    members: str | None = None
    attempts: str | None = None
    one_of: str | None = None
    where: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    problem: Mapping[str, Places] = field(default_factory=dict)
    attempt: Mapping[str, Places] = field(default_factory=dict)
    features: Mapping[str, Places] = field(default_factory=dict)
    right: tuple[Scalar, ...] = ()
    wrong: tuple[Scalar, ...] = ()
    no_answer: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError`, with the key's name, for what cannot be meant."""
        if self.layout not in get_args(Layout):
            raise ValueError(f"layout must be one of {', '.join(get_args(Layout))}, not {self.layout!r}")
        if self.attempts is not None and self.layout != "lists":
            raise ValueError('attempts is only for layout = "lists"')
        for table, names in (("problem", PROBLEM_NAMES), ("attempt", ATTEMPT_NAMES)):
            _check_names(getattr(self, table), names, f"{table}.")
        for name, places in {**self.problem, **self.attempt}.items():
            for place in places:
                if place.startswith("@") and place not in _SPECIAL.get(name, ()):
                    allowed = ", ".join(_SPECIAL.get(name, ())) or "none"
                    raise ValueError(f"{name} cannot be {place!r} (places with @ that it may be: {allowed})")
        if "statement" not in self.problem:
            raise ValueError("problem.statement is missing")


def load_mapping(name_or_path: str | Path) -> RecordingMapping:
    """A preset by its name, or a mapping from a TOML file.

    Raises:
        InputError: there is none, or it cannot be used; the message says which key and why.
    """
    text = str(name_or_path)
    presets = preset_names()
    if text in presets:
        content = (_preset_folder() / f"{text}.toml").read_text(encoding="utf-8")
        return _parsed(content, text, f"the preset {text}")
    path = Path(name_or_path)
    if path.suffix.lower() != ".toml" and not path.exists():
        raise InputError(
            f"there is no mapping {text!r}{_meant(text, presets)}; presets are {', '.join(presets)}; "
            "a mapping file's name ends in .toml"
        )
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise InputError(f"{path}: longer than {_MAX_BYTES >> 10} KiB; that is no mapping")
        content = data.decode("utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text; save the file as UTF-8") from error
    return _parsed(content, path.stem, str(path))


def preset_names() -> list[str]:
    """The names that `load_mapping` knows, sorted."""
    return sorted(item.name.removesuffix(".toml") for item in _preset_folder().iterdir() if item.name.endswith(".toml"))


def _preset_folder() -> Any:
    return resources.files("mathlete.lab") / "mappings"


def _parsed(content: str, name: str, where: str) -> RecordingMapping:
    try:
        given = tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{where}: not TOML ({error})") from error
    try:
        return mapping_of(given, name)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def mapping_of(given: Mapping[str, Any], name: str) -> RecordingMapping:
    """A mapping from what its TOML says.

    Raises:
        ValueError: a key is unknown or holds what it cannot; the message begins with its name.
    """
    _check_names(given, _TOP_NAMES, "")
    tables = {key: _table(given, key) for key in ("where", "problem", "attempt", "features", "values")}
    _check_names(tables["values"], _VALUE_NAMES, "values.")
    texts = {key: _text(given[key], key) for key in _TOP_NAMES if key in given and key not in tables}
    values = {key: _scalars(item, f"values.{key}") for key, item in tables["values"].items()}
    return RecordingMapping(
        name=name,
        **texts,  # type: ignore[arg-type]  # layout is checked by the class
        where={key: _scalars(item, f"where.{key}") for key, item in tables["where"].items()},
        problem=_places(tables["problem"], "problem"),
        attempt=_places(tables["attempt"], "attempt"),
        features=_places(tables["features"], "features"),
        right=values.get("right", ()),
        wrong=values.get("wrong", ()),
        no_answer=tuple(map(str, values.get("no_answer", ()))),
    )


def _table(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = given.get(key, {})
    if not isinstance(table, dict):
        raise ValueError(f"{key} must be a table, [{key}], not {table!r:.40}")
    return table


def _text(value: object, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} must be text, not {value!r:.40}")
    return value


def _places(table: Mapping[str, Any], name: str) -> dict[str, Places]:
    """Each as several places, of which there may be one."""
    places = {}
    for key, value in table.items():
        several = value if isinstance(value, list) else [value]
        if not several:
            raise ValueError(f"{name}.{key} must name a place, not none")
        places[key] = tuple(_text(item, f"{name}.{key}") for item in several)
    return places


def _scalars(value: object, key: str) -> tuple[Scalar, ...]:
    several = value if isinstance(value, list) else [value]
    for item in several:
        if not isinstance(item, str | int | float):
            raise ValueError(f"{key} must be text, a number, true or false, or a list of those, not {item!r:.40}")
    return tuple(several)


def _check_names(given: Iterable[str], allowed: tuple[str, ...], prefix: str) -> None:
    for name in given:
        if name not in allowed:
            known = ", ".join(prefix + item for item in allowed)
            raise ValueError(f"{prefix}{name} is unknown{_meant(name, allowed, prefix)}; known are {known}")


def _meant(name: str, allowed: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""
