"""The faults of the 2/50 pipeline (SPEC part H), one switch each, and those of them that lie in reading an answer.

Pure functions over recorded turns: what an attempt would have been worth to the old pipeline can be told of any
attempt whose turns are kept. Does not know pools or votes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from mathlete.core.attempt import Attempt, Failure, Turn
from mathlete.core.problem import AnswerKind
from mathlete.triad.attempt_ending import answer_in, features_of

_NUMBER = re.compile(r"-?[0-9]{1,400}(?:\.[0-9]{1,400})?")
_MODULUS = 100_000
_THINKING_ENDS = "</think>"


@dataclass(frozen=True, slots=True)
class Faults:
    """What is done as the 2/50 pipeline did it. All of them are it; none of them is a plain vote that knows no harm.

    Attributes:
        no_reasoning: attempts go straight to code; else they reason around it, as the code pillar's do.
        one_pass: an attempt is over with what its first program did.
        cut_at_think: nothing behind `</think>` is read.
        last_printed: the answer is the last number printed (else written), made positive, modulo 100,000.
        one_sample_shortcut: what a first program that ran has printed is the answer, and nothing else is tried.
        half_of_two: two answers are enough, since one of two is half of them, and that is a consensus.
        told_wrong: the second half of the attempts are told that the most common answer is wrong.
        ran_is_verified: an answer whose program ran without an error counts as verified, and others leave the vote.
        no_symbolic_check: no check is made, and evidence that an answer is wrong is not looked at.
        basin_median: the answer is the median of the heaviest basin of near values, voted for or not.
        numerology: ties are broken by digit sums.
        time_decay: each problem takes a fixed part of the time that is left, whatever is to come.
    """

    no_reasoning: bool = True
    one_pass: bool = True
    cut_at_think: bool = True
    last_printed: bool = True
    one_sample_shortcut: bool = True
    half_of_two: bool = True
    told_wrong: bool = True
    ran_is_verified: bool = True
    no_symbolic_check: bool = True
    basin_median: bool = True
    numerology: bool = True
    time_decay: bool = True


FAULTS = tuple(field.name for field in fields(Faults))
NO_FAULTS = Faults(**dict.fromkeys(FAULTS, False))


def as_read(attempt: Attempt, kind: AnswerKind, faults: Faults) -> Attempt:
    """The attempt as it would have been with the faults of reading: its answer, and the tokens up to where it ended.

    One that these faults leave as it was is returned as it is, and so is a check.
    """
    turns = _first_pass(attempt.turns) if faults.one_pass else attempt.turns
    if faults.cut_at_think:
        turns = _cut_at_think(turns)
    if attempt.is_check or (turns == attempt.turns and not faults.last_printed):
        return attempt
    answer = last_number(turns) if faults.last_printed else answer_in(turns, kind, complete=True).answer
    if turns == attempt.turns:
        return replace(attempt, answer=answer, failure=_failure(attempt, answer))
    return replace(
        attempt,
        answer=answer,
        failure=_failure(attempt, answer),
        turns=turns,
        num_tokens=sum(turn.num_tokens for turn in turns),
        features=features_of(turns),
    )


def last_number(turns: Sequence[Turn]) -> str | None:
    """The last number that the last program printed, else that was written: cut to an integer, abs, mod 100,000."""
    results = [turn.result for turn in turns if turn.result is not None]
    for text in (results[-1].stdout if results else "", "".join(turn.text for turn in turns)):
        numbers = _NUMBER.findall(text)
        if numbers:
            return str(int(numbers[-1].lstrip("-").partition(".")[0]) % _MODULUS)
    return None


def program_ran(attempt: Attempt) -> bool:
    """Whether the last program of an attempt ended without an error: to the old pipeline, a verification."""
    results = [turn.result for turn in attempt.turns if turn.result is not None]
    return bool(results) and results[-1].status == "ok"


def _first_pass(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    first = next((i for i, turn in enumerate(turns) if turn.result is not None), None)
    return turns if first is None else turns[: first + 1]


def _cut_at_think(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    for i, turn in enumerate(turns):
        if _THINKING_ENDS in turn.text:
            cut = replace(turn, text=turn.text.partition(_THINKING_ENDS)[0], code=None, result=None, tool_text=None)
            return (*turns[:i], cut)
    return turns


def _failure(attempt: Attempt, answer: str | None) -> Failure | None:
    return None if answer is not None else attempt.failure or "no_answer"
