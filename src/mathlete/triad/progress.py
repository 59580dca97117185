"""How far a run has come, as plain data for a live display."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProblemProgress:
    """One problem for a live display.

    Attributes:
        problem_id: which.
        state: "waiting", "open" or "done".
        num_finished: finished attempts.
        num_in_flight: attempts generating or running code.
        num_tokens: completion tokens, those in flight included.
        votes: (answer, votes), leader first.
        answer: once chosen.
        reason: why it ended.
        elapsed_s: since it was opened.
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


@dataclass(frozen=True, slots=True)
class RunProgress:
    """A run for a live display. `num_tokens` are those of this session, `at_s` counts earlier ones too."""

    problems: tuple[ProblemProgress, ...]
    at_s: float
    remaining_s: float
    num_tokens: int
    generating_s: float
