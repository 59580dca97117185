"""What a run came to on each problem: the answer handed in, whether it is right, and what it cost.

Knows runs folded from their traces, and recorded attempts, which tell no choice and get a plain vote's. Does not know
what outcomes are compared with. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mathlete.cic.majority import Majority
from mathlete.core.record import RunRecord
from mathlete.core.selection import FALLBACK
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.rightness import choice_is_right, recorded_as_right


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to on one problem.

    Attributes:
        problem_id: of the problem.
        statement: of the problem; the same id with another text is another problem.
        group: unit of resampling.
        gold: the right answer, None when it is not known.
        answer: that was handed in; None when there was none, which counts as wrong.
        right: whether it is right; None when that is not known.
        num_tokens: of all attempts and checks.
        seconds: of all attempts and checks, added up although they may have run at the same time.
    """

    problem_id: str
    statement: str
    group: str
    gold: str | None
    answer: str | None
    right: bool | None
    num_tokens: int
    seconds: float


def outcomes_of_run(run: RunRecord) -> list[Outcome]:
    """What a run came to on each problem; one that has no answer yet counts as wrong where the right one is known."""
    outcomes = []
    for key, record in run.problems.items():
        chosen = record.selection
        outcomes.append(
            Outcome(
                problem_id=key,
                statement=record.problem.statement,
                group=record.group or key,
                gold=record.gold,
                answer=None if chosen is None or chosen.rule == FALLBACK else chosen.answer,
                right=choice_is_right(record),
                num_tokens=sum(attempt.num_tokens for attempt in record.attempts),
                seconds=math.fsum(attempt.elapsed_s for attempt in record.attempts),
            )
        )
    return outcomes


def outcomes_of_recorded(problems: Iterable[RecordedProblem]) -> list[Outcome]:
    """What a plain vote makes of recorded attempts, whose files do not tell what was handed in.

    Ties go as `cic.majority` breaks them: to lower entropy, then to the answer that came first.
    """
    outcomes = []
    for item in problems:
        chosen = Majority().select(item.problem, item.attempts)
        answer = None if chosen.rule == FALLBACK else chosen.answer
        attempts = (*item.attempts, *item.checks)
        outcomes.append(
            Outcome(
                problem_id=item.problem.id,
                statement=item.problem.statement,
                group=item.group,
                gold=item.gold,
                answer=answer,
                right=answer is not None and recorded_as_right(item, answer),
                num_tokens=sum(attempt.num_tokens for attempt in attempts),
                seconds=math.fsum(attempt.elapsed_s for attempt in attempts),
            )
        )
    return outcomes
