"""The questions that were put to a failed run, put to any run (SPEC part H): how were its answers come by? Pure.

Knows a run. Counts, and does not say what is good. A program that ran is no verification; a check that found something
is. Attempts whose text is not loaded are left out of what needs it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mathlete.core.attempt import Attempt
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.selection import FALLBACK
from mathlete.lab.rightness import choice_is_right

MIN_REASONING_CHARS = 80
"""Of text before the first program; with less, an attempt went straight to code."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Answers of one kind.

    Attributes:
        num: how many.
        num_right: of those, how many are right, as far as golds are known.
    """

    num: int = 0
    num_right: int = 0


@dataclass(frozen=True, slots=True)
class Habits:
    """How the answers of a run were come by.

    Attributes:
        num_answers: problems with an answer, fallbacks included.
        num_attempts: tries at them; checks are none.
        knows_golds: whether any of them has a gold.
        one_pass: answers of problems with one attempt.
        one_vote: answers that one attempt alone gave, of those with more attempts.
        minority: answers that fewer than half of the votes are for, of those with more than one vote for them.
        checked: answers that a check supports or proves.
        against_check: answers that a check refutes.
        fallbacks: answers that no attempt gave.
        num_with_program: attempts that ran a program.
        num_straight_to_code: of those, how many wrote less than `MIN_REASONING_CHARS` before the first one.
        solved_s: seconds over all problems that are right.
        failed_s: seconds over all problems that are not.
    """

    num_answers: int = 0
    num_attempts: int = 0
    knows_golds: bool = False
    one_pass: Tally = Tally()
    one_vote: Tally = Tally()
    minority: Tally = Tally()
    checked: Tally = Tally()
    against_check: Tally = Tally()
    fallbacks: Tally = Tally()
    num_with_program: int = 0
    num_straight_to_code: int = 0
    solved_s: float = 0.0
    failed_s: float = 0.0


def habits_of(run: RunRecord) -> Habits:
    """The habits of a run, finished or not; problems that are still open are left out."""
    records = [record for record in run.problems.values() if record.selection is not None]
    solutions = [attempt for record in records for attempt in record.attempts if not attempt.is_check]
    programs = [text for text in map(_before_first_program, solutions) if text is not None]
    kinds = {name: _tally([r for r in records if name in _kinds(r)]) for name in _KINDS}
    graded = [record for record in records if record.gold is not None]
    return Habits(
        num_answers=len(records),
        num_attempts=len(solutions),
        knows_golds=bool(graded),
        **kinds,
        num_with_program=len(programs),
        num_straight_to_code=sum(len(text.strip()) < MIN_REASONING_CHARS for text in programs),
        solved_s=sum(_seconds(record) for record in graded if choice_is_right(record)),
        failed_s=sum(_seconds(record) for record in graded if not choice_is_right(record)),
    )


_KINDS = ("one_pass", "one_vote", "minority", "checked", "against_check", "fallbacks")


def _kinds(record: ProblemRecord) -> set[str]:
    """Of `_KINDS`, what the answer of a problem is."""
    assert record.selection is not None, "only problems with an answer are asked about"
    answer = record.selection.answer
    solutions = [attempt for attempt in record.attempts if not attempt.is_check]
    num_votes = sum(attempt.answer is not None for attempt in solutions)
    num_for = sum(attempt.answer == answer for attempt in solutions)
    evidence = [e for a in record.attempts if a.is_check for e in a.evidence if e.answer == answer]
    found = {
        "one_pass": len(solutions) == 1,
        "one_vote": num_for == 1 and len(solutions) > 1,
        "minority": num_for > 1 and 2 * num_for < num_votes,
        "checked": any(item.verdict in ("SUPPORTED", "PROVED") for item in evidence),
        "against_check": any(item.verdict == "REFUTED" for item in evidence),
        "fallbacks": record.selection.rule == FALLBACK,
    }
    return {name for name, holds in found.items() if holds}


def _tally(records: list[ProblemRecord]) -> Tally:
    return Tally(len(records), sum(choice_is_right(record) is True for record in records))


def _seconds(record: ProblemRecord) -> float:
    if record.opened_at_s is None or record.finished_at_s is None:
        return 0.0
    return max(0.0, record.finished_at_s - record.opened_at_s)


def _before_first_program(attempt: Attempt) -> str | None:
    """What an attempt wrote before its first program; None when it ran none."""
    written = ""
    for turn in attempt.turns:
        if turn.result is not None:
            return written + turn.text.split("```")[0]
        written += turn.text
    return None
