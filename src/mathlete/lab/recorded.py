"""Recorded attempts: the interchange format, one problem a line, read back into problems and attempts.

Knows the format, whoever wrote the file (`lab.export` for our own runs), and every way in which an object can fail to
keep to it. Does not know other forms of recordings (`lab.recordings` reads those through this one), nor how attempts
are chosen from or replayed. What a file does not say is left at its neutral value and never guessed from other rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from mathlete.core.attempt import AnswerSource, Attempt, Failure, Turn
from mathlete.core.errors import InputError
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.selection import Evidence, Verdict
from mathlete.lab.answer_judging import AnswerJudge
from mathlete.lab.bad_rows import BadRow, BadRows
from mathlete.lab.json_lines import decode_object, read_lines

SUFFIXES = (".jsonl", ".jsonl.gz")
MAX_NUMBER = 1e15
"""Of tokens, seconds and the like: beyond it a number is no measurement, and counts are no longer exact."""
_FAILURES, _SOURCES, _VERDICTS = get_args(Failure), get_args(AnswerSource), get_args(Verdict)

JudgeAnswer = Callable[[str | None, str], bool]
"""Of an answer and a gold, whether it is right."""


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


class MalformedError(ValueError):
    """An object that does not keep to the format.

    Attributes:
        inside: where in it, such as ", attempt 2", or "".
    """

    def __init__(self, reason: str, inside: str = "") -> None:
        """With what is wrong, for a person."""
        super().__init__(reason)
        self.inside = inside


def read_recorded(path: Path, kind: AnswerKind | None = None) -> Iterator[RecordedProblem]:
    """The problems of a .jsonl or .jsonl.gz file, one line decoded at a time.

    Args:
        path: the file.
        kind: what the problems' answers may be, which the format does not say; the default of `AnswerKind` if None.

    Raises:
        InputError: the file cannot be read, or rows are malformed: raised once all others have been handed out; the
            message says which rows and why.
    """
    bad = BadRows()
    with AnswerJudge() as judge:
        for item in read_interchange(path, kind or AnswerKind(), judge.is_right):
            if isinstance(item, BadRow):
                bad.add(item)
            else:
                yield item
    bad.raise_if_any()


def read_interchange(
    path: Path, kind: AnswerKind, is_right: JudgeAnswer, seen: dict[str, str] | None = None
) -> Iterator[RecordedProblem | BadRow]:
    """As `read_recorded`, with malformed rows between the others instead of an error at the end.

    Args:
        path: the file.
        kind: what the problems' answers may be.
        is_right: judges answers whose file does not say whether they are right.
        seen: place of each problem id of files that were read before; those of this one are put in.

    Raises:
        InputError: the file as a whole cannot be read.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"{path}: recorded attempts are read from {' or '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path}: file not found")
    seen = {} if seen is None else seen
    source = path.name.split(".jsonl")[0]
    for number, content in read_lines(path):
        where = f"{path}, line {number}"
        try:
            fields = decode_object(content)
            problem_id = _text(fields, "problem_id")
            if problem_id in seen:
                before = seen[problem_id].removeprefix(f"{path}, ")
                raise MalformedError(f"problem {problem_id!r} was in {before} already; ids must differ")
            seen[problem_id] = where
            yield problem_from(fields, source, kind, is_right)
        except MalformedError as error:
            yield BadRow(where + error.inside, str(error))
        except ValueError as error:
            yield BadRow(where, str(error))


def problem_from(fields: Mapping[str, Any], source: str, kind: AnswerKind, is_right: JudgeAnswer) -> RecordedProblem:
    """The problem that an object of the interchange format holds.

    Raises:
        MalformedError: it does not keep to the format.
    """
    problem_id = _text(fields, "problem_id")
    statement = _text(fields, "problem")
    if fields.get("gold") in (None, ""):
        raise MalformedError("has no 'gold'; recorded attempts are read to be judged, so give the right answer")
    gold = _text(fields, "gold")
    attempts, correct = [], []
    for index, entry in enumerate(_entries(fields, "attempt")):
        try:
            attempt = _attempt(entry, problem_id, index)
            told = entry.get("correct")
            if told is None:
                told = is_right(attempt.answer, gold)
            elif told is not True and told is not False:
                raise MalformedError(f"'correct' must be true or false, not {told!r:.40}")
        except MalformedError as error:
            raise MalformedError(str(error), f", attempt {index}") from error
        attempts.append(attempt)
        correct.append(told)
    checks = []
    for index, entry in enumerate(_entries(fields, "check") if "checks" in fields else ()):
        try:
            checks.append(_attempt(entry, problem_id, len(attempts) + index))
        except MalformedError as error:
            raise MalformedError(str(error), f", check {index}") from error
    group = problem_id if fields.get("group") in (None, "") else _text(fields, "group")
    problem = Problem(problem_id, statement, kind, source=source)
    return RecordedProblem(problem, gold, group, tuple(attempts), tuple(correct), tuple(checks))


def _entries(fields: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects of a list."""
    found = fields.get(f"{name}s")
    if not isinstance(found, list):
        raise MalformedError(f"'{name}s' must be a list, not {found!r:.40}")
    for index, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise MalformedError(f"must be an object, not {entry!r:.40}", f", {name} {index}")
    return found


def _attempt(entry: dict[str, Any], problem_id: str, index: int) -> Attempt:
    """One attempt. Called for each of hundreds of thousands: what an entry does not have costs one look-up."""
    get = entry.get
    answer = None if (given := get("answer")) is None else _answer(given)
    features = _features(given) if (given := get("features")) is not None else {}
    failure = None if (given := get("failure")) is None else _one_of(given, "failure", _FAILURES)
    evidence = () if (given := get("evidence")) is None else _evidence(given)
    if failure is None and answer is None and not evidence:
        failure = "no_answer"
    pillar = _optional_text(given, "pillar") if (given := get("pillar")) else None
    num_tokens = 0 if (given := get("tokens")) is None else int(_number(given, "tokens"))
    return Attempt(
        f"{problem_id}#{index}",
        problem_id,
        index,
        pillar or ("code" if features.get("tool_calls") else "reasoning"),
        0 if (given := get("seed")) is None else _seed(given),
        0 if (given := get("temperature")) is None else _number(given, "temperature"),
        answer,
        None if (given := get("answer_source")) is None else _one_of(given, "answer_source", _SOURCES),
        _turns(entry, num_tokens),
        num_tokens,
        0 if (given := get("seconds")) is None else _number(given, "seconds"),
        features,
        failure,
        None,
        0 if (given := get("discarded")) is None else int(_number(given, "discarded")),
        1 if (given := get("round")) is None else int(_number(given, "round")),
        () if (given := get("about")) is None else _texts(given, "about"),
        evidence,
        None if (given := get("model")) is None else _optional_text(given, "model"),
    )


def _answer(value: object) -> str | None:
    """An answer as text; blank ones are None."""
    if isinstance(value, str):
        return value.strip() or None
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, float) and math.isfinite(value)):
        raise MalformedError(f"'answer' must be text, a number or null, not {value!r:.40}")
    return str(value)


def _turns(entry: dict[str, Any], num_tokens: int) -> tuple[Turn, ...]:
    """The whole text as one turn; or the last tool output and the last part of the text, where a file has those."""
    text = _optional_text(given, "text") if (given := entry.get("text")) else None
    if text is not None:
        return (Turn(text, num_tokens=num_tokens),)
    output = _optional_text(given, "last_tool_output") if (given := entry.get("last_tool_output")) else None
    tail = _optional_text(given, "tail") if (given := entry.get("tail")) else None
    known = (Turn("", tool_text=output) if output is not None else None, Turn(tail) if tail is not None else None)
    return tuple(turn for turn in known if turn is not None)


def _features(given: object) -> dict[str, float]:
    """Finite numbers by name; what was not finite is null in the file and left out here."""
    if not isinstance(given, dict):
        raise MalformedError(f"'features' must be an object, not {given!r:.40}")
    found = {}
    for name, value in given.items():
        if type(value) is float:
            if math.isfinite(value):
                found[name] = value
        elif isinstance(value, int):
            found[name] = _as_float(value, name)
        elif value is not None:
            raise MalformedError(f"feature {name!r:.60} must be a number, not {value!r:.40}")
    return found


def _as_float(value: int, name: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise MalformedError(f"feature {name!r:.60} must be a number of 64 bits, not {value!r:.40}") from error


def _evidence(given: object) -> tuple[Evidence, ...]:
    if not isinstance(given, list):
        raise MalformedError(f"'evidence' must be a list, not {given!r:.40}")
    return tuple(map(_one_evidence, given))


def _one_evidence(item: object) -> Evidence:
    if not isinstance(item, dict) or not isinstance(item.get("verdict"), str) or item["verdict"] not in _VERDICTS:
        raise MalformedError(f"evidence must be an object with a 'verdict', one of {', '.join(_VERDICTS)}")
    wrong = [name for name in ("checker", "claim", "detail") if not isinstance(item.get(name, ""), str)]
    wrong += [name for name in ("failure", "answer") if not isinstance(item.get(name), str | None)]
    if wrong:
        raise MalformedError(f"evidence cannot be read ({wrong[0]!r} must be text, not {item[wrong[0]]!r:.40})")
    _number(item.get("elapsed_s", 0.0), "elapsed_s")
    try:
        return Evidence(**item)
    except TypeError as error:
        raise MalformedError(f"evidence cannot be read ({error})") from error


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_NUMBER:
        raise MalformedError(f"{name!r} must be a finite number from 0 to {MAX_NUMBER:g}, not {value!r:.40}")
    return value


def _seed(value: object) -> int:
    """All 64 bits of it count, unlike those of a measurement."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_NUMBER:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise MalformedError(f"'seed' must be a whole number from 0 up, of 64 bits, not {value!r:.40}")
    return value


def _one_of(value: object, name: str, allowed: tuple[str, ...]) -> Any:
    if not isinstance(value, str) or value not in allowed:
        raise MalformedError(f"{name!r} must be one of {', '.join(allowed)}, not {value!r:.40}")
    return value


def _texts(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str | int) for item in value):
        raise MalformedError(f"{name!r} must be a list of texts, not {value!r:.40}")
    return tuple(map(str, value))


def _optional_text(value: object, name: str) -> str | None:
    """A text, or a whole number that is meant as one; None when it is empty."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise MalformedError(f"{name!r} must be text, not {value!r:.40}")


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise MalformedError(f"has no {name!r}")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise MalformedError(f"{name!r} must be text that is not blank, not {value!r:.40}")
    return value
