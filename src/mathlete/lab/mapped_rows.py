"""A row of a foreign file, by its mapping, as an object of the interchange format.

Knows mappings and what foreign files write in place of nothing, of true and of a number. Does not judge the result:
`recorded.problem_from` checks all of it, whoever wrote it. Pure.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mathlete.core.problem import AnswerKind
from mathlete.lab.mapping import ATTEMPT_NAMES, Places, RecordingMapping, Scalar
from mathlete.lab.recorded import MalformedError
from mathlete.lab.task_files import Row, stem_of
from mathlete.verify.extraction import extract_answer, extract_boxed
from mathlete.verify.integers import parse_integer

MISSING: Any = object()
_ANY_INTEGER = AnswerKind(low=-(10**400), high=10**400)
_NUMBERS = frozenset(["tokens", "seconds", "temperature", "discarded", "round"])
_WORDS = {"true": True, "false": False}
_ID_CHARS = 12  # of a digest; 48 bits tell a million statements apart


@dataclass(frozen=True, slots=True)
class MappedRow:
    """What a row says, in the words of the interchange format but for `correct` and `answer`, which stay to be checked.

    Attributes:
        head: `problem_id`, `problem`, `gold`, and `group` where it has one.
        attempts: one with layout "rows", any number with "lists".
    """

    head: dict[str, Any]
    attempts: list[dict[str, Any]]


def is_wanted(row: Row, mapping: RecordingMapping) -> bool:
    """Whether a row has what the mapping's `where` asks for."""
    return all(found(row.fields, place) in allowed for place, allowed in mapping.where.items())


def map_row(row: Row, mapping: RecordingMapping) -> MappedRow:
    """The problem of a row and its attempt or attempts.

    Raises:
        MalformedError: a place holds what it cannot.
    """
    head = _head(row, mapping)
    if mapping.layout == "rows":
        return MappedRow(head, [_attempt(row.fields, row, head["gold"], mapping)])
    if mapping.attempts is None:
        return MappedRow(head, _from_parallel_lists(row, head["gold"], mapping))
    return MappedRow(head, _from_list(row, head["gold"], mapping))


def found(value: Any, place: str) -> Any:
    """What stands at a place; `MISSING` when nothing does."""
    if isinstance(value, Mapping) and place in value:
        return value[place]
    for part in place.split("."):
        if isinstance(value, Mapping):
            value = next(iter(value.values()), MISSING) if part == "*" else value.get(part, MISSING)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            value = _element(value, part)
        else:
            return MISSING
    return value


def _element(values: Sequence[Any], part: str) -> Any:
    position = "0" if part == "*" else part
    if not position.removeprefix("-").isdecimal() or len(position) > 9:
        return MISSING
    try:
        return values[int(position)]
    except IndexError:
        return MISSING


def gold_text(value: Any) -> Any:
    r"""A gold as the answer alone: what stands behind "####" (GSM8K), or in the last \boxed{...} of a solution."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if not isinstance(value, str):
        return value
    if "####" in value:
        return value.rsplit("####", 1)[1].strip()
    boxed = extract_boxed(value) if "boxed" in value else None
    return value.strip() if boxed is None else boxed.strip()


def answer_in_text(text: str, gold: str) -> str | None:
    """The answer that a text gives: an integer where the gold is one, else what stands in its last box."""
    if parse_integer(gold, _ANY_INTEGER).answer is not None:
        integer = extract_answer(text, None, _ANY_INTEGER).answer
        if integer is not None:
            return integer
    return (extract_boxed(text) or "").strip() or None


def _head(row: Row, mapping: RecordingMapping) -> dict[str, Any]:
    statement = _first_text(row.fields, mapping.problem["statement"])
    if statement is None:
        wanted = " or ".join(map(repr, mapping.problem["statement"]))
        raise MalformedError(f"has no statement at {wanted}; it has {_names(row.fields)}")
    head = {"problem": statement, "problem_id": _problem_id(row, statement, mapping)}
    for place in mapping.problem.get("gold", ()):
        gold = gold_text(found(row.fields, place))
        if not is_nothing(gold):
            head["gold"] = gold if isinstance(gold, str) else _exact(gold, "gold")
            break
    else:
        wanted = " or ".join(map(repr, mapping.problem.get("gold", ()))) or "no place (the mapping names none)"
        raise MalformedError(f"has no gold at {wanted}; it has {_names(row.fields)}")
    group = None
    for place in mapping.problem.get("group", ()):
        group = stem_of(row.file) if place == "@file" else _text_of(found(row.fields, place))
        if group is not None:
            head["group"] = group
            break
    return head


def _problem_id(row: Row, statement: str, mapping: RecordingMapping) -> str:
    for place in mapping.problem.get("id", ("@row",)):
        if place == "@statement":
            digest = hashlib.sha256(" ".join(statement.split()).encode("utf-8", "surrogatepass"))
            return f"s-{digest.hexdigest()[:_ID_CHARS]}"
        if place == "@row":
            return f"{stem_of(row.file)}-{row.place.rsplit(' ', 1)[-1]}"
        problem_id = _text_of(found(row.fields, place))
        if problem_id is not None:
            return problem_id
    raise MalformedError(f"has no id at {' or '.join(map(repr, mapping.problem['id']))}; it has {_names(row.fields)}")


def _from_list(row: Row, gold: str, mapping: RecordingMapping) -> list[dict[str, Any]]:
    assert mapping.attempts is not None
    entries = found(row.fields, mapping.attempts)
    if entries is MISSING or not isinstance(entries, list):
        shown = "nothing" if entries is MISSING else f"{entries!r:.40}"
        raise MalformedError(f"{mapping.attempts!r} must be a list of attempts, not {shown}")
    attempts = []
    for index, entry in enumerate(entries):
        try:
            attempts.append(_attempt(entry, row, gold, mapping, is_only=len(entries) == 1))
        except MalformedError as error:
            raise MalformedError(str(error), f", attempt {index}") from error
    return attempts


def _from_parallel_lists(row: Row, gold: str, mapping: RecordingMapping) -> list[dict[str, Any]]:
    """Columns that each hold a list, one element an attempt."""
    columns: dict[str, list[Any]] = {}
    for places in (*mapping.attempt.values(), *mapping.features.values()):
        for place in places:
            column = found(row.fields, place)
            if isinstance(column, list):
                columns[place] = column
    lengths = {place: len(column) for place, column in columns.items()}
    if not columns:
        raise MalformedError(f"has no list of attempts; it has {_names(row.fields)}")
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{place!r} has {length}" for place, length in lengths.items())
        raise MalformedError(f"lists of one problem must be of one length: {shown}")
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [_attempt(entry, row, gold, mapping) for entry in rows]


def _attempt(entry: Any, row: Row, gold: str, mapping: RecordingMapping, *, is_only: bool = True) -> dict[str, Any]:
    """One attempt; places that begin with "/" are in the row, and of use only where it has no other attempt."""
    fields = entry if isinstance(entry, Mapping) else {}
    told: dict[str, Any] = {"text": entry} if isinstance(entry, str) else {}
    if not isinstance(entry, Mapping | str):
        raise MalformedError(f"must be an object or a text, not {entry!r:.40}")
    for name in ATTEMPT_NAMES:
        if name == "answer":
            continue
        value = _value(name, mapping.attempt.get(name, ()), fields, row, is_only)
        if value is not None:
            told[name] = value
    if "correct" in told:
        told["correct"] = _as_correct(told["correct"], mapping)
    if mapping.features:
        whole = told.get("features", {})
        if not isinstance(whole, dict):
            raise MalformedError(f"'features' must be an object, not {whole!r:.40}")
        told["features"] = {**whole, **_features(fields, row, mapping)}
    told["answer"] = _answer(mapping, fields, row, told.get("text"), gold, is_only)
    return told


def _value(name: str, places: Places, fields: Mapping[str, Any], row: Row, is_only: bool) -> Any:
    """The first that there is, None when there is none."""
    for place in places:
        value: Any = stem_of(row.file) if place == "@file" else _at(place, fields, row, is_only)
        if is_nothing(value):
            continue
        if name == "seed":
            return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 21 else value
        if name in _NUMBERS:
            return _as_number(value, name)
        if name == "text":
            value = _joined(value)
        return value
    return None


def _answer(
    mapping: RecordingMapping, fields: Mapping[str, Any], row: Row, text: Any, gold: str, is_only: bool
) -> str | None:
    """The first place that is there decides, even where it says that there is no answer."""
    for place in mapping.attempt.get("answer", ()):
        if place == "@text":
            if isinstance(text, str):
                return answer_in_text(text, gold)
            continue
        value = _at(place, fields, row, is_only)
        if value is MISSING:
            continue
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        if is_nothing(value) or value in mapping.no_answer:
            return None
        return value if isinstance(value, str) else _exact(value, "answer")
    return None


def _at(place: str, fields: Mapping[str, Any], row: Row, is_only: bool) -> Any:
    if not place.startswith("/"):
        return found(fields, place)
    return found(row.fields, place[1:]) if is_only else MISSING


def _features(fields: Mapping[str, Any], row: Row, mapping: RecordingMapping) -> dict[str, Any]:
    values = {name: _value("feature", places, fields, row, True) for name, places in mapping.features.items()}
    return {name: _as_number(value, f"feature {name}") for name, value in values.items() if value is not None}


def _as_correct(value: Any, mapping: RecordingMapping) -> bool:
    if _is_in(value, mapping.right):
        return True
    if _is_in(value, mapping.wrong):
        return False
    if isinstance(value, str):
        value = _WORDS.get(value.strip().lower(), {"1": True, "0": False}.get(value.strip(), value))
    if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value)
    raise MalformedError(
        f"'correct' is {value!r:.40}, which says neither right nor wrong; name it under [values] right or wrong"
    )


def _is_in(value: Any, known: tuple[Scalar, ...]) -> bool:
    """Whether a value is one of them, true and 1 being different."""
    return any(type(value) is type(item) and value == item for item in known)


def _as_number(value: Any, name: str) -> float:
    """A number, or one that a table writes as text."""
    if isinstance(value, str):
        try:
            value = float(value) if len(value) < 40 else value
        except ValueError:
            pass
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, float) and math.isinf(value))
    ):
        raise MalformedError(f"{name!r} must be a finite number, not {value!r:.40}")
    return value


def _exact(value: Any, name: str) -> str:
    """A number as text: whole ones without a fraction, whatever the column's type made of them."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, float) and math.isinf(value))
    ):
        raise MalformedError(f"{name!r} must be text or a number, not {value!r:.40}")
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return str(value)


def _first_text(fields: Mapping[str, Any], places: Places) -> str | None:
    return next((text for place in places if (text := _text_of(found(fields, place))) is not None), None)


def _text_of(value: Any) -> str | None:
    """A text that is not blank, or a whole number as one; None for anything else."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.strip() else None


def _joined(value: Any) -> Any:
    """The texts of a message's parts, where a message has parts."""
    if isinstance(value, list) and all(isinstance(part, Mapping) for part in value):
        return "".join(part["text"] for part in value if isinstance(part.get("text"), str))
    return value


def is_nothing(value: Any) -> bool:
    """Whether a place holds no value: nothing there, null, NaN or an empty text."""
    return value is MISSING or value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _names(fields: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, list(fields)[:20])) or "nothing"
