"""How far a run has come, as plain data for a live display."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mathlete.cic.majority import tally
from mathlete.core.attempt import Attempt
from mathlete.core.selection import Selection


@dataclass(frozen=True, slots=True)
class ProblemProgress:
    """One problem for a live display.

    Attributes:
        problem_id: which.
        state: "waiting", "open" or "done".
        num_finished: finished attempts, checks left out.
        num_in_flight: attempts generating or running code, checks included.
        num_tokens: completion tokens, those in flight included.
        votes: (answer, votes), leader first.
        answer: once chosen.
        reason: why it ended.
        elapsed_s: since it was opened.
        num_checks: finished checks of answers.
        accepted: whether the answer is accepted, or only offered; None where its rule does not ask.
    """

    problem_id: str
    state: str
    num_finished: int = 0
    num_in_flight: int = 0
    num_tokens: int = 0
    votes: tuple[tuple[str, int], ...] = ()
    answer: str | None = None
    reason: str | None = None
    elapsed_s: float = 0.0
    num_checks: int = 0
    accepted: bool | None = None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """A run for a live display. `num_tokens` are those of this session, `at_s` counts earlier ones too."""

    problems: tuple[ProblemProgress, ...]
    at_s: float
    remaining_s: float
    num_tokens: int
    generating_s: float


def progress_of_open(
    problem_id: str, finished: Sequence[Attempt], *, num_in_flight: int, num_live_tokens: int, elapsed_s: float
) -> ProblemProgress:
    """A problem that is being worked on; `num_live_tokens` are those of the attempts in flight."""
    num_checks = sum(attempt.is_check for attempt in finished)
    return ProblemProgress(
        problem_id,
        "open",
        len(finished) - num_checks,
        num_in_flight,
        num_live_tokens + _num_tokens(finished),
        _votes(finished),
        elapsed_s=elapsed_s,
        num_checks=num_checks,
    )


def progress_of_done(
    problem_id: str, attempts: Sequence[Attempt], selection: Selection, reason: str
) -> ProblemProgress:
    """A problem that has ended."""
    num_checks = sum(attempt.is_check for attempt in attempts)
    return ProblemProgress(
        problem_id,
        "done",
        len(attempts) - num_checks,
        0,
        _num_tokens(attempts),
        _votes(attempts),
        selection.answer,
        reason,
        num_checks=num_checks,
        accepted=selection.accepted,
    )


def _num_tokens(attempts: Sequence[Attempt]) -> int:
    return sum(attempt.num_tokens for attempt in attempts)


def _votes(attempts: Sequence[Attempt]) -> tuple[tuple[str, int], ...]:
    return tuple((item.answer, item.votes) for item in tally(attempts))
