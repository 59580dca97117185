r"""Why problems failed: every problem without the right answer, sorted by cause (SPEC part H). Pure.

Knows a run, and what its attempts wrote. Does not know how a report looks, and judges nothing that the trace does not
tell: without a gold answer only problems that got no answer at all count as failed, and where the text of attempts is
not loaded it is not searched, which is counted.

Causes of a problem, the first that holds:
    selection   the right answer was in the pool and another one was chosen
    extraction  it was never in the pool, but an attempt wrote or printed the right number, which is not its answer
    otherwise   what befell most of its attempts, of the causes below; where two are level, the first named
Causes of an attempt that is not right:
    knowledge   it has an answer, and a wrong one
    no_answer   it came to no answer, or to its limit of tokens
    extraction  it has an answer outside the admissible interval; or the right number stands in it
    tool_error  its last program failed, and nothing came after
    out_of_time the clock ended it, or came before it
    cut_off     a person or a failing generator ended it
An attempt that was stopped because the vote was settled without it has none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mathlete.core.attempt import Attempt, Failure
from mathlete.core.problem import AnswerKind
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.selection import FALLBACK
from mathlete.lab.rightness import is_right
from mathlete.verify.extraction import extract_boxed, last_printed_integer
from mathlete.verify.integers import answers_equal, parse_integer

Cause = Literal["selection", "extraction", "knowledge", "no_answer", "tool_error", "out_of_time", "cut_off"]
Place = Literal["box", "output", "last_number", "out_of_range"]

CAUSES: tuple[Cause, ...] = (
    "selection",
    "extraction",
    "knowledge",
    "no_answer",
    "tool_error",
    "out_of_time",
    "cut_off",
)
_OF_FAILURE: dict[Failure, Cause] = {
    "no_answer": "no_answer",
    "length": "no_answer",
    "tool_error": "tool_error",
    "out_of_range": "extraction",
    "out_of_time": "out_of_time",
    "generator_error": "cut_off",
    "interrupted": "cut_off",
}
# Of others the text breaks off somewhere, and its last number is any number.
_CAME_TO_AN_END: frozenset[Failure | None] = frozenset({None, "no_answer", "tool_error", "out_of_range"})
_ANY_INTEGER = AnswerKind("integer", -(10**30), 10**30)
_TAIL_CHARS = 400  # of a text, in which its last number is looked for
_NUMBER = re.compile(r"(?<![\w.,^_])[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?![\w,])|(?<![\w.,^_])[-+]?[0-9]+(?!\w|[.,][0-9])")


@dataclass(frozen=True, slots=True)
class Overlooked:
    """A number that stands in an attempt and is not its answer.

    Attributes:
        attempt_id: of the attempt.
        place: in a "box", as the last line of a program's "output", as the "last_number" of its text; or, whatever its
            value, as an answer "out_of_range".
        value: the number, as canonical text.
    """

    attempt_id: str
    place: Place
    value: str


@dataclass(frozen=True, slots=True)
class FailedProblem:
    """A problem without the right answer.

    Attributes:
        number: 1, 2, 3, ... in the order of the run.
        problem_id: of the problem.
        cause: see the module docstring.
        answer: that was handed in.
        gold: the right one, where it is known.
        pool: attempts per answer, most first.
        attempts: attempts by cause, most first; right ones are left out.
        overlooked: numbers in attempts that were not read as their answers.
        stop_reason: why the problem ended.
    """

    number: int
    problem_id: str
    cause: Cause
    answer: str
    gold: str | None
    pool: Mapping[str, int]
    attempts: Mapping[Cause, int]
    overlooked: tuple[Overlooked, ...]
    stop_reason: str | None


@dataclass(frozen=True, slots=True)
class AttemptToll:
    """What attempts of one cause cost, over all problems, failed or not.

    Attributes:
        num_attempts: how many.
        num_tokens: that they sampled.
    """

    num_attempts: int = 0
    num_tokens: int = 0


@dataclass(frozen=True, slots=True)
class PostMortem:
    """The failed problems of a run, and what became of all its attempts.

    Attributes:
        problems: the failed ones, in the order of the run.
        num_finished: problems that have an answer.
        num_graded: of those, how many have a known gold.
        tolls: of attempts that are not right, by cause. Where golds are unknown no answer counts as wrong.
        right: of attempts that are.
        num_unread: attempts whose text is not loaded, so that it was not searched for the right number.
    """

    problems: tuple[FailedProblem, ...]
    num_finished: int
    num_graded: int
    tolls: Mapping[Cause, AttemptToll]
    right: AttemptToll
    num_unread: int

    def of_cause(self, cause: Cause) -> tuple[FailedProblem, ...]:
        """The failed problems of one cause."""
        return tuple(problem for problem in self.problems if problem.cause == cause)


def post_mortem(run: RunRecord) -> PostMortem:
    """Sort what failed in a run, finished or not; problems that are still open are left out."""
    failed: list[FailedProblem] = []
    tolls: dict[Cause, AttemptToll] = {}
    right = AttemptToll()
    num_unread = 0
    finished = [(n, record) for n, record in enumerate(run.problems.values(), 1) if record.selection is not None]
    for number, record in finished:
        found = [_Judged.of(record, attempt) for attempt in record.attempts if not attempt.is_check]
        num_unread += sum(not item.attempt.turns and item.attempt.num_tokens > 0 for item in found)
        for item in found:
            if item.is_right:
                right = _added(right, item.attempt)
            elif item.cause is not None:
                tolls[item.cause] = _added(tolls.get(item.cause, AttemptToll()), item.attempt)
        if _has_failed(record):
            failed.append(_failed_problem(number, record, found))
    return PostMortem(
        problems=tuple(failed),
        num_finished=len(finished),
        num_graded=sum(record.gold is not None for _, record in finished),
        tolls={cause: tolls[cause] for cause in CAUSES if cause in tolls},
        right=right,
        num_unread=num_unread,
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    """An attempt, and what is held against it."""

    attempt: Attempt
    is_right: bool
    cause: Cause | None
    overlooked: Overlooked | None

    @classmethod
    def of(cls, record: ProblemRecord, attempt: Attempt) -> _Judged:
        if attempt.answer is not None and (record.gold is None or is_right(record, attempt.answer)):
            return cls(attempt, record.gold is not None, None, None)
        overlooked = _overlooked(attempt, record.gold)
        if overlooked is not None:
            return cls(attempt, False, "extraction", overlooked)
        if attempt.answer is not None:
            return cls(attempt, False, "knowledge", None)
        return cls(attempt, False, _OF_FAILURE.get(attempt.failure or "no_answer"), None)


def _overlooked(attempt: Attempt, gold: str | None) -> Overlooked | None:
    """The right number where it stands as a result in an attempt that is not right; else an answer out of range."""
    boxes = [extract_boxed(turn.text) for turn in attempt.turns]
    boxed = [parse_integer(box, _ANY_INTEGER).answer for box in boxes if box is not None]
    printed = [
        last_printed_integer(turn.result.stdout, _ANY_INTEGER).answer
        for turn in attempt.turns
        if turn.result is not None and turn.result.status == "ok"
    ]
    if gold is not None:
        places: list[tuple[Place, list[str | None]]] = [("box", boxed), ("output", printed)]
        if attempt.answer is None and attempt.failure in _CAME_TO_AN_END:
            places.append(("last_number", [_last_number(attempt)]))
        for place, values in places:
            if any(value is not None and answers_equal(value, gold) for value in values):
                return Overlooked(attempt.id, place, gold.strip())
    if attempt.failure == "out_of_range" and attempt.answer is None:
        read = [value for value in (*printed, *boxed) if value is not None]  # what was boxed comes last: it counts
        return Overlooked(attempt.id, "out_of_range", read[-1] if read else "")
    return None


def _last_number(attempt: Attempt) -> str | None:
    """The last number of what it wrote."""
    written = "".join(turn.text for turn in attempt.turns)
    found = _NUMBER.findall(written[-_TAIL_CHARS:])
    return parse_integer(found[-1], _ANY_INTEGER).answer if found else None


def _has_failed(record: ProblemRecord) -> bool:
    selection = record.selection
    if selection is None:
        return False
    if record.gold is None:
        return selection.rule == FALLBACK
    return not is_right(record, selection.answer)


def _failed_problem(number: int, record: ProblemRecord, found: Sequence[_Judged]) -> FailedProblem:
    assert record.selection is not None, "a problem that has failed has been ended"
    causes = Counter(item.cause for item in found if item.cause is not None)
    overlooked = tuple(item.overlooked for item in found if item.overlooked is not None)
    answers = Counter(item.attempt.answer for item in found if item.attempt.answer is not None)
    return FailedProblem(
        number=number,
        problem_id=record.problem.id,
        cause=_cause(found, causes, overlooked),
        answer=record.selection.answer,
        gold=record.gold,
        pool=dict(answers.most_common()),
        attempts=dict(causes.most_common()),
        overlooked=overlooked,
        stop_reason=record.stop_reason,
    )


def _cause(found: Sequence[_Judged], causes: Counter[Cause], overlooked: Sequence[Overlooked]) -> Cause:
    if any(item.is_right for item in found):
        return "selection"
    if any(item.place != "out_of_range" for item in overlooked):
        return "extraction"
    if not causes:  # nothing was tried, or all of it was stopped before it could fail
        return "out_of_time"
    most = max(causes.values())
    level = [cause for cause in ("knowledge", *CAUSES) if causes.get(cause) == most]
    return level[0]


def _added(toll: AttemptToll, attempt: Attempt) -> AttemptToll:
    return AttemptToll(toll.num_attempts + 1, toll.num_tokens + attempt.num_tokens)
