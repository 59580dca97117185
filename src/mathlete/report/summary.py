"""The numbers of a report: what came of each problem and of the whole run. Pure; knows no HTML.

Glossary: an attempt *votes* when it has an answer; a *check* is an attempt that judges answers instead, and is
counted apart. A selection is *accepted* when independent attempts agree and a check supports them, else *offered*,
where its rule asks for that. A problem is *answered* when its selection
rests on votes; a *fallback* is handed in when nobody voted. With a gold answer, a selection is
right or wrong, whether or not it rests on votes: that is how it is scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mathlete.core.attempt import Failure
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.selection import FALLBACK
from mathlete.lab.rightness import choice_is_right, is_right

State = Literal["right", "wrong", "answered", "fallback", "running", "waiting"]
FAILURE_WORDS: dict[Failure, str] = {
    "no_answer": "no answer found",
    "length": "token limit reached",
    "tool_error": "program failed",
    "out_of_time": "out of time",
    "out_of_range": "answer out of range",
    "generator_error": "generator error",
    "interrupted": "interrupted",
    "stopped": "stopped, vote settled",
}


@dataclass(frozen=True, slots=True)
class ProblemSummary:
    """What came of one problem.

    Attributes:
        number: 1, 2, 3, ... in the order of the input.
        record: what the trace tells.
        state: see the module docstring; "right" and "wrong" only when gold is known.
        votes: attempts per answer, most votes first.
        silent: attempts without an answer, by why.
        gold_votes: attempts that gave the gold answer; None when gold is unknown.
        num_solutions: finished attempts that are no checks.
        num_checks: finished attempts that are.
        num_tokens: sampled tokens, checks and unfinished attempts included.
        elapsed_s: from opening to the end, or to the run's last event; None before opening.
    """

    number: int
    record: ProblemRecord
    state: State
    votes: Mapping[str, int]
    silent: Mapping[Failure, int]
    gold_votes: int | None
    num_solutions: int
    num_checks: int
    num_tokens: int
    elapsed_s: float | None

    @property
    def rests_on_votes(self) -> bool:
        """Whether there is an answer and it is not a fallback."""
        selection = self.record.selection
        return selection is not None and selection.rule != FALLBACK

    @property
    def accepted(self) -> bool | None:
        """Whether the answer is accepted, or only offered; None when there is none or its rule does not ask."""
        return None if self.record.selection is None else self.record.selection.accepted

    @property
    def lost_at_selection(self) -> bool:
        """Whether the right answer was in the pool and another was chosen."""
        return self.state == "wrong" and bool(self.gold_votes)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What came of a run.

    Attributes:
        problems: in the order of the input.
        num_answered: problems whose selection rests on votes.
        num_graded: finished problems with a known gold answer.
        num_right: of those, how many are right.
        num_in_pool: of those, how many have the right answer among their attempts.
        num_attempts: finished attempts, checks left out.
        num_voting: of those, how many have an answer.
        num_checks: finished checks.
        num_accepted: selections that are accepted.
        num_accepted_right: of those, how many are right, as far as gold is known.
        num_offered: selections that are only offered.
        num_tokens: sampled tokens.
        tokens_per_s: over the run's elapsed time; None before any time has passed.
    """

    problems: tuple[ProblemSummary, ...]
    num_answered: int
    num_graded: int
    num_right: int
    num_in_pool: int
    num_attempts: int
    num_voting: int
    num_checks: int
    num_accepted: int
    num_accepted_right: int
    num_offered: int
    num_tokens: int
    tokens_per_s: float | None


def same_answer(left: str, right: str) -> bool:
    """Whether two answers are the same text or the same integer ("007" and "7")."""
    left, right = left.strip(), right.strip()
    if left == right:
        return True
    short = max(len(left), len(right)) <= 100  # Python refuses to read very long integers
    return short and left.isdecimal() and right.isdecimal() and int(left) == int(right)


def summarise_problem(number: int, record: ProblemRecord, run_elapsed_s: float) -> ProblemSummary:
    """The summary of one problem of a run whose last event was at `run_elapsed_s`."""
    solutions = [attempt for attempt in record.attempts if not attempt.is_check]
    votes = Counter(attempt.answer for attempt in solutions if attempt.answer is not None)
    silent: Counter[Failure] = Counter(
        attempt.failure or "no_answer" for attempt in solutions if attempt.answer is None
    )
    gold_votes = None
    if record.gold is not None:
        gold_votes = sum(count for answer, count in votes.items() if is_right(record, answer))
    end_s = run_elapsed_s if record.finished_at_s is None else record.finished_at_s
    return ProblemSummary(
        number=number,
        record=record,
        state=_state(record),
        votes=dict(votes.most_common()),
        silent=dict(silent.most_common()),
        gold_votes=gold_votes,
        num_solutions=len(solutions),
        num_checks=len(record.attempts) - len(solutions),
        num_tokens=sum(attempt.num_tokens for attempt in record.attempts)
        + sum(turn.num_tokens for turns in record.unfinished.values() for turn in turns),
        elapsed_s=None if record.opened_at_s is None else max(0.0, end_s - record.opened_at_s),
    )


def summarise_run(run: RunRecord) -> RunSummary:
    """The summary of a run, finished or not."""
    problems = tuple(
        summarise_problem(number, record, run.elapsed_s) for number, record in enumerate(run.problems.values(), 1)
    )
    graded = [problem for problem in problems if problem.state in ("right", "wrong")]
    num_tokens = sum(problem.num_tokens for problem in problems)
    return RunSummary(
        problems=problems,
        num_answered=sum(problem.rests_on_votes for problem in problems),
        num_graded=len(graded),
        num_right=sum(problem.state == "right" for problem in graded),
        num_in_pool=sum(bool(problem.gold_votes) for problem in graded),
        num_attempts=sum(problem.num_solutions for problem in problems),
        num_voting=sum(sum(problem.votes.values()) for problem in problems),
        num_checks=sum(problem.num_checks for problem in problems),
        num_accepted=sum(problem.accepted is True for problem in problems),
        num_accepted_right=sum(problem.accepted is True and problem.state == "right" for problem in problems),
        num_offered=sum(problem.accepted is False for problem in problems),
        num_tokens=num_tokens,
        tokens_per_s=num_tokens / run.elapsed_s if run.elapsed_s > 0 else None,
    )


def _state(record: ProblemRecord) -> State:
    selection = record.selection
    if selection is None:
        return "waiting" if record.opened_at_s is None and not record.attempts else "running"
    if record.gold is not None:
        return "right" if choice_is_right(record) else "wrong"
    return "fallback" if selection.rule == FALLBACK else "answered"
