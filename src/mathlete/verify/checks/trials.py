"""Reads what a check's run printed. Believes nothing about it: lines that are not ours, or not as we write them, go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from mathlete.core.code import ToolResult
from mathlete.verify.checks.check_program import Asked

Outcome = Literal["accepted", "rejected", "raised", "timeout", "unknown", "inconsistent", "not_asked"]

_MAX_DETAIL = 200
_MAX_COUNT_DIGITS = 30


@dataclass(frozen=True, slots=True)
class Trial:
    """What a check said about one number.

    Attributes:
        answer: the number.
        outcome: "unknown" when a solver could not decide, "inconsistent" when it said two things.
        detail: for a person.
    """

    answer: int
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Trials:
    """Everything that one run of a check said.

    Attributes:
        candidates: one for each, in the order asked.
        decoys: likewise.
        others: of a candidate that the check accepts: another solution of its constraints ("" when there is none);
            no entry when that is not known.
        counted: what an enumeration came to.
        trouble: why it came to nothing: "timeout", or words.
    """

    candidates: tuple[Trial, ...] = ()
    decoys: tuple[Trial, ...] = ()
    others: Mapping[int, str] = field(default_factory=dict)
    counted: int | None = None
    trouble: str = ""


def read_trials(result: ToolResult, word: str, asked: Asked) -> Trials:
    """What the lines that begin with `word` say on the numbers that were asked about."""
    said: dict[int, Trial] = {}
    others: dict[int, str] = {}
    counted, trouble = None, ""
    for kind, answer, told, detail in _lines(result.stdout, word):
        if kind == "enumeration":
            counted = _count(told, detail)
            trouble = "" if counted is not None else detail or told
        elif kind == "other_solution":
            if told in ("accepted", "rejected"):
                others[answer] = detail if told == "accepted" else ""
        elif told in get_args(Outcome):
            before = said.get(answer)
            again = before is not None and {before.outcome, told} == {"accepted", "rejected"}
            if before is None or again:
                outcome = "inconsistent" if again else cast(Outcome, told)
                said[answer] = Trial(answer, outcome, detail)
    if not said and counted is None and not trouble:
        trouble = "timeout" if result.status == "timeout" else f"its run told nothing and ended with {result.status!r}"
    return Trials(
        tuple(said.get(number, Trial(number, "not_asked")) for number in asked.candidates),
        tuple(said.get(number, Trial(number, "not_asked")) for number in asked.decoys),
        others,
        counted,
        trouble,
    )


def _lines(stdout: str, word: str) -> list[tuple[str, int, str, str]]:
    found = []
    for line in stdout.splitlines():
        if not line.startswith(word + " "):
            continue
        try:
            said = json.loads(line[len(word) + 1 :])
        except (ValueError, RecursionError):
            continue
        if isinstance(said, list) and [type(part) for part in said] == [str, int, str, str]:
            found.append((said[0], said[1], said[2], said[3][:_MAX_DETAIL]))
    return found


def _count(told: str, detail: str) -> int | None:
    digits = detail.removeprefix("-")
    if told != "counted" or not digits.isascii() or not digits.isdigit() or len(digits) > _MAX_COUNT_DIGITS:
        return None
    return int(detail)
