"""Answers of independent attempts, problem by problem, as the statistics need them: which agree, and which are right.

Knows which attempts of recorded problems count. Does not know files, tokens or texts. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mathlete.core.errors import InputError
from mathlete.lab.recorded import RecordedProblem


@dataclass(frozen=True, slots=True)
class AnswerPool:
    """The attempts at one problem.

    Attributes:
        problem_id: of the problem.
        group: unit of resampling.
        answers: of each attempt; None for none.
        correct: of each attempt, whether its answer is right.
    """

    problem_id: str
    group: str
    answers: tuple[str | None, ...]
    correct: tuple[bool, ...]


def answer_pools(problems: Iterable[RecordedProblem]) -> list[AnswerPool]:
    """The pools of recorded problems; what several recordings hold of one problem is one pool.

    Left out are checks, attempts that were shown others' answers, and those that the clock, a person or a settled vote
    cut off before they had an answer: none of them is a draw of what the model writes.

    Raises:
        InputError: two recordings give one id to different problems or different right answers.
    """
    firsts: dict[str, RecordedProblem] = {}
    answers: dict[str, list[str | None]] = {}
    correct: dict[str, list[bool]] = {}
    for item in problems:
        key = item.problem.id
        first = firsts.setdefault(key, item)
        if first.problem.statement.split() != item.problem.statement.split() or first.gold != item.gold:
            raise InputError(
                f"problem {key!r} is not the same in all recordings (its text or its right answer differs); "
                "give recordings of the same problems, or one at a time"
            )
        for attempt, is_right in zip(item.attempts, item.correct, strict=True):
            if attempt.is_independent and not attempt.tells_nothing:
                answers.setdefault(key, []).append(attempt.answer)
                correct.setdefault(key, []).append(is_right)
    return [
        AnswerPool(key, item.group, tuple(answers.get(key, ())), tuple(correct.get(key, ())))
        for key, item in firsts.items()
    ]
