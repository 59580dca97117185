"""Recorded attempts: files in the interchange format, one problem a line, read back into problems and attempts.

Knows the format, whoever wrote the file (`lab.export` for our own runs). Does not know how attempts are chosen from
or replayed. What a file does not say is left at its neutral value and never guessed from other rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from mathlete.core.attempt import AnswerSource, Attempt, Failure, Turn
from mathlete.core.errors import InputError
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.selection import Evidence, Verdict
from mathlete.lab.task_files import Row, read_rows
from mathlete.verify.integers import answers_equal

_SUFFIXES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class RecordedProblem:
    """One problem, its gold, and attempts at it that somebody recorded.

    Attributes:
        problem: what was asked.
        gold: the right answer, as the file writes it; it need not be an integer.
        group: unit of resampling and of cross-validation.
        attempts: in the order of the file. An answer is the file's text, blank ones are None; it need not be a
            canonical integer. The texts a file keeps of an attempt are its turns.
        correct: of each attempt, whether its answer is right: what the file says, else by comparison with `gold`.
        checks: attempts that judge answers and have no vote, with their evidence; none where a file has none.
    """

    problem: Problem
    gold: str
    group: str
    attempts: tuple[Attempt, ...]
    correct: tuple[bool, ...]
    checks: tuple[Attempt, ...] = ()

    def pooled(self) -> RecordedProblem:
        """The same with its checks behind the attempts, none of them right: the pool that a selector is given."""
        correct = (*self.correct, *[False] * len(self.checks))
        return replace(self, attempts=(*self.attempts, *self.checks), correct=correct, checks=())


def read_recorded(path: Path, kind: AnswerKind | None = None) -> Iterator[RecordedProblem]:
    """The problems of a .jsonl or .jsonl.gz file, one line decoded at a time.

    Args:
        path: the file.
        kind: what the problems' answers may be, which the format does not say; the default of `AnswerKind` if None.

    Raises:
        InputError: the file cannot be read, or a row is malformed; the message says which row and why.
    """
    if not path.name.lower().endswith(_SUFFIXES):
        raise InputError(f"{path}: recorded attempts are read from {' or '.join(_SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path}: file not found")
    answer_kind = kind or AnswerKind()
    seen: dict[str, str] = {}
    for row in read_rows(path):
        problem_id = _text(row.fields, "problem_id", row.where)
        if problem_id in seen:
            raise InputError(f"{row.where}: problem {problem_id!r} was in {seen[problem_id]} already; ids must differ")
        seen[problem_id] = row.place
        yield _problem(row, problem_id, answer_kind)


def _problem(row: Row, problem_id: str, kind: AnswerKind) -> RecordedProblem:
    fields, where = row.fields, row.where
    gold = fields.get("gold")
    if gold is None or gold == "":
        raise InputError(f"{where}: has no 'gold'; recorded attempts are read to be judged, so give the right answer")
    gold = _text(fields, "gold", where)
    attempts, correct = [], []
    for index, (place, entry) in enumerate(_entries(fields.get("attempts"), "attempt", where)):
        attempts.append(_attempt(entry, problem_id, index, place))
        correct.append(_correct(entry, attempts[-1].answer, gold, place))
    checks = [
        _attempt(entry, problem_id, index, place)
        for index, (place, entry) in enumerate(_entries(fields.get("checks", []), "check", where), len(attempts))
    ]
    group = problem_id if fields.get("group") in (None, "") else _text(fields, "group", where)
    source = row.file.name.split(".jsonl")[0]
    problem = Problem(problem_id, _text(fields, "problem", where), kind, source=source)
    return RecordedProblem(problem, gold, group, tuple(attempts), tuple(correct), tuple(checks))


def _entries(found: object, name: str, where: str) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a list, each with its place."""
    if not isinstance(found, list):
        raise InputError(f"{where}: '{name}s' must be a list, not {found!r:.40}")
    for index, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise InputError(f"{where}, {name} {index}: must be an object, not {entry!r:.40}")
    return [(f"{where}, {name} {index}", entry) for index, entry in enumerate(found)]


def _attempt(entry: Mapping[str, Any], problem_id: str, index: int, where: str) -> Attempt:
    answer = None if entry.get("answer") is None else str(entry["answer"]).strip() or None
    features = _features(entry.get("features") or {}, where)
    failure = _one_of(entry, "failure", get_args(Failure), where)
    pillar = "code" if features.get("tool_calls") else "reasoning"
    return Attempt(
        id=f"{problem_id}#{index}",
        problem_id=problem_id,
        index=index,
        pillar=_optional_text(entry, "pillar", where) or pillar,
        seed=int(_number(entry, "seed", where)),
        temperature=_number(entry, "temperature", where),
        answer=answer,
        answer_source=_one_of(entry, "answer_source", get_args(AnswerSource), where),
        turns=_turns(entry, where),
        num_tokens=int(_number(entry, "tokens", where)),
        elapsed_s=_number(entry, "seconds", where),
        features=features,
        failure=failure or ("no_answer" if answer is None and not entry.get("evidence") else None),
        num_discarded=int(_number(entry, "discarded", where)),
        round=int(_number(entry, "round", where, default=1)),
        about=tuple(str(item) for item in entry.get("about") or ()),
        evidence=tuple(_evidence(item, where) for item in entry.get("evidence") or ()),
        model=_optional_text(entry, "model", where),
    )


def _turns(entry: Mapping[str, Any], where: str) -> tuple[Turn, ...]:
    """The whole text as one turn; or the last tool output and the last part of the text, where a file has those."""
    text, tail = _optional_text(entry, "text", where), _optional_text(entry, "tail", where)
    output = _optional_text(entry, "last_tool_output", where)
    if text is not None:
        return (Turn(text, num_tokens=int(_number(entry, "tokens", where))),)
    known = (Turn("", tool_text=output) if output is not None else None, Turn(tail) if tail is not None else None)
    return tuple(turn for turn in known if turn is not None)


def _features(given: object, where: str) -> dict[str, float]:
    """Finite numbers by name; what was not finite is null in the file and left out here."""
    if not isinstance(given, dict):
        raise InputError(f"{where}: 'features' must be an object, not {given!r:.40}")
    wrong = [name for name, value in given.items() if value is not None and not isinstance(value, int | float)]
    if wrong:
        raise InputError(f"{where}: feature {wrong[0]!r} must be a number, not {given[wrong[0]]!r:.40}")
    return {name: float(value) for name, value in given.items() if value is not None and math.isfinite(value)}


def _evidence(item: object, where: str) -> Evidence:
    if not isinstance(item, dict) or item.get("verdict") not in get_args(Verdict):
        raise InputError(f"{where}: evidence must be an object with a 'verdict', one of {', '.join(get_args(Verdict))}")
    try:
        return Evidence(**item)
    except TypeError as error:
        raise InputError(f"{where}: evidence cannot be read ({error})") from error


def _correct(entry: Mapping[str, Any], answer: str | None, gold: str, where: str) -> bool:
    told = entry.get("correct")
    if told is None:
        return answer is not None and (answer == gold or answers_equal(answer, gold))
    if not isinstance(told, bool):
        raise InputError(f"{where}: 'correct' must be true or false, not {told!r:.40}")
    return told


def _number(entry: Mapping[str, Any], name: str, where: str, default: float = 0) -> float:
    value = entry.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InputError(f"{where}: {name!r} must be a finite number from 0 up, not {value!r:.40}")
    return value


def _one_of(entry: Mapping[str, Any], name: str, allowed: tuple[Any, ...], where: str) -> Any:
    value = entry.get(name)
    if value is not None and value not in allowed:
        raise InputError(f"{where}: {name!r} must be one of {', '.join(allowed)}, not {value!r:.40}")
    return value


def _optional_text(entry: Mapping[str, Any], name: str, where: str) -> str | None:
    return None if entry.get(name) in (None, "") else _text(entry, name, where, blank=True)


def _text(fields: Mapping[str, Any], name: str, where: str, *, blank: bool = False) -> str:
    """A key that must hold text, or a whole number that is meant as text."""
    value = fields.get(name)
    if value is None:
        raise InputError(f"{where}: has no {name!r}")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not (blank or value.strip()):
        raise InputError(f"{where}: {name!r} must be text{'' if blank else ' that is not blank'}, not {value!r:.40}")
    return value
