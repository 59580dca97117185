"""How far a run had come by when, and at what price: shares of its problems over its tokens and its seconds. Pure.

Knows a run with the times at which its attempts and problems ended. Does not know how it is drawn. Glossary: an answer
is *handed in* when its problem ends; the *vote so far* is the plain vote over the attempts that have finished, ties
sharing; the *pool so far* is all that they have answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mathlete.core.attempt import Attempt
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.lab.at_k import majority_at_k, pass_at_k
from mathlete.lab.metrics import AttemptRow, Estimate, attempt_rows, bootstrap_estimates
from mathlete.lab.rightness import is_right

MAX_ATTEMPTS = 64
_FARTHER = (24, 32, 48, 64)


class Standing(NamedTuple):
    """Where a run stood. Without golds `right` tells of all answers, and the others are 0.

    Attributes:
        at_s: seconds on the run's clock.
        num_tokens: that finished attempts and checks had sampled.
        right: share of the problems whose right answer was handed in.
        vote: share that the vote so far got right.
        pool: share with the right answer in the pool so far.
    """

    at_s: float
    num_tokens: int
    right: float
    vote: float
    pool: float


@dataclass(frozen=True, slots=True)
class Course:
    """The course of a run.

    Attributes:
        standings: in order of time, the first at the start.
        num_problems: of which the shares are: those with a gold, or all where no gold is known.
        graded: whether golds are known.
    """

    standings: tuple[Standing, ...]
    num_problems: int
    graded: bool


class AtK(NamedTuple):
    """What k attempts a problem would be worth.

    Attributes:
        k: attempts.
        any_right: pass@k: chance that one of k is right.
        vote: majority@k: chance that a plain vote of k is right.
        num_tokens: mean tokens of k attempts.
        num_short: problems with fewer than k attempts; each counts with all it has.
    """

    k: int
    any_right: Estimate
    vote: Estimate
    num_tokens: float
    num_short: int


class _Happening(NamedTuple):
    """An attempt or a problem that ended."""

    at_s: float
    record: ProblemRecord
    attempt: Attempt | None  # None when the problem itself ended


def course_of(run: RunRecord) -> Course | None:
    """The course of a run whose trace tells when things ended; None for one that does not, or has not begun."""
    graded = [record for record in run.problems.values() if record.gold is not None]
    counted = graded or list(run.problems.values())
    happenings = sorted(
        (item for record in run.problems.values() for item in _happenings(record)), key=lambda item: item.at_s
    )
    if not happenings or happenings[-1].at_s <= 0:
        return None
    ids = {record.problem.id for record in counted}
    so_far = {problem_id: _SoFar() for problem_id in ids}
    total = [0.0, 0.0, 0.0]
    num_tokens, standings = 0, [Standing(0.0, 0, 0.0, 0.0, 0.0)]
    for item in happenings:
        num_tokens += item.attempt.num_tokens if item.attempt is not None else 0
        state = so_far.get(item.record.problem.id)
        if state is not None:
            before = state.shares
            state.add(item)
            total = [sum_ + new - old for sum_, new, old in zip(total, state.shares, before, strict=True)]
        right, vote, pool = (value / len(counted) for value in total)
        standings.append(Standing(item.at_s, num_tokens, right, vote, pool))
    return Course(tuple(standings), len(counted), bool(graded))


def thin_out(standings: Sequence[Standing], most: int) -> tuple[Standing, ...]:
    """At most `most` of them, evenly by rank, the first and the last among them."""
    if len(standings) <= most:
        return tuple(standings)
    return tuple(standings[round(i * (len(standings) - 1) / (most - 1))] for i in range(most))


def at_k(run: RunRecord) -> tuple[AtK, ...]:
    """For k = 1, 2, ... up to the largest number of attempts (64 at most), with paired bootstrap intervals by group.

    From 16 on only 24, 32, 48, 64 and the largest: each k costs more than the ones before, and a line needs no more.
    Empty when no gold is known or nothing was tried. Attempts are those that `lab.metrics` counts.
    """
    rows = attempt_rows(run)
    most = min(MAX_ATTEMPTS, max((len(row.answers) for row in rows), default=0))
    ks = [k for k in range(1, most + 1) if k <= 16 or k in _FARTHER or k == most]
    if not ks:
        return ()
    columns = {f"pass@{k}": [_any_right(row, k) for row in rows] for k in ks}
    columns |= {f"vote@{k}": [_vote(row, k) for row in rows] for k in ks}
    estimates = bootstrap_estimates(columns, [row.group for row in rows])
    return tuple(
        AtK(
            k=k,
            any_right=estimates[f"pass@{k}"],
            vote=estimates[f"vote@{k}"],
            num_tokens=sum(_tokens(row, k) for row in rows) / len(rows),
            num_short=sum(len(row.answers) < k for row in rows),
        )
        for k in ks
    )


class _SoFar:
    """One problem on its way: (handed in, vote, pool), each in [0, 1]."""

    def __init__(self) -> None:
        self._votes: Counter[str] = Counter()
        self.shares = (0.0, 0.0, 0.0)

    def add(self, item: _Happening) -> None:
        right, vote, pool = self.shares
        gold, selection = item.record.gold, item.record.selection
        if item.attempt is None:
            assert selection is not None, "a problem that ended has a selection"
            right = float(gold is None or is_right(item.record, selection.answer))
        elif item.attempt.answer is not None and gold is not None:
            self._votes[item.attempt.answer] += 1
            most = max(self._votes.values())
            leaders = [answer for answer, votes in self._votes.items() if votes == most]
            vote = sum(is_right(item.record, answer) for answer in leaders) / len(leaders)
            pool = max(pool, float(is_right(item.record, item.attempt.answer)))
        self.shares = (right, vote, pool)


def _happenings(record: ProblemRecord) -> list[_Happening]:
    attempts = {attempt.id: attempt for attempt in record.attempts}
    found = [
        _Happening(moment.at_s, record, attempts[moment.attempt_id])
        for moment in record.moments
        if moment.kind == "attempt_finished" and moment.attempt_id in attempts
    ]
    if record.selection is not None and record.finished_at_s is not None:
        found.append(_Happening(record.finished_at_s, record, None))
    return found


def _any_right(row: AttemptRow, k: int) -> float:
    num = len(row.answers)
    return pass_at_k(num, sum(row.correct), min(k, num)) if num else 0.0


def _vote(row: AttemptRow, k: int) -> float:
    num = len(row.answers)
    return majority_at_k(row.answers, row.correct, min(k, num)) if num else 0.0


def _tokens(row: AttemptRow, k: int) -> float:
    return min(k, len(row.tokens)) * sum(row.tokens) / len(row.tokens) if row.tokens else 0.0
