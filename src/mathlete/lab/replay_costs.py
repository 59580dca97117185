"""Which recorded attempts can be given out again, what each costs, and whether an answer to them is right.

Knows recorded problems. Does not know policies, clocks or figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mathlete.contest.stop_rules import takes_place
from mathlete.core.attempt import Attempt
from mathlete.core.errors import InputError
from mathlete.lab.recorded import RecordedProblem
from mathlete.triad.recorded_source import Speed


@dataclass(frozen=True, slots=True)
class Costed:
    """Problems whose attempts can be timed.

    Attributes:
        problems: with the attempts that are given out: samples of what the model can do.
        speed: how their time is told; None by their recorded seconds.
        knows_tokens: whether their tokens mean anything.
        knows_seconds: whether time on the clock does.
    """

    problems: tuple[RecordedProblem, ...]
    speed: Speed | None
    knows_tokens: bool
    knows_seconds: bool


def with_costs(
    problems: Sequence[RecordedProblem], *, budget_s: float | None, token_budget: int | None, speed: Speed | None
) -> Costed:
    """The problems without checks and attempts that are no samples, and how to time the others.

    An attempt that does not say what it cost is refused where a budget or speed needs it. Where none does, attempts end
    by their tokens when not all tell their seconds, and one after the other when not all tell these either.

    Args:
        problems: recorded.
        budget_s: seconds for all of them; None for no limit.
        token_budget: tokens for all of them; None for no limit.
        speed: of generating; None to let each attempt take its recorded seconds.

    Raises:
        InputError: there are no problems, two have one id, or an attempt with an answer does not say what a budget or
            speed needs; the message says which.
    """
    kept = tuple(_with_samples(item) for item in problems)
    _check(kept)
    no_tokens, no_seconds = _first_without(kept, "num_tokens"), _first_without(kept, "elapsed_s")
    if no_tokens is not None and (token_budget is not None or speed is not None):
        what = "a budget in tokens" if token_budget is not None else "a speed in tokens a second"
        raise InputError(f"{no_tokens} does not say how many tokens it took, and {what} needs them: leave it out")
    if no_seconds is not None and budget_s is not None and speed is None:
        advice = "give a speed in tokens a second" if no_tokens is None else "leave the budget out"
        raise InputError(
            f"{no_seconds} does not say how many seconds it took, and a budget in seconds needs them: {advice}"
        )
    knows_seconds = no_seconds is None or speed is not None
    if not knows_seconds:
        speed = Speed(1.0)  # only the order in which attempts end counts
        if no_tokens is not None:
            kept = tuple(map(_with_equal_lengths, kept))
    return Costed(kept, speed, no_tokens is None, knows_seconds)


def longest(problems: Sequence[RecordedProblem]) -> int:
    """Tokens that an attempt may take, as far as recordings tell; at least 1."""
    return max(1, max((attempt.num_tokens for item in problems for attempt in item.attempts), default=1))


def _check(problems: Sequence[RecordedProblem]) -> None:
    if not problems:
        raise InputError("there are no recorded problems to replay")
    seen: set[str] = set()
    for item in problems:
        if item.problem.id in seen:
            raise InputError(f"problem {item.problem.id!r} is recorded twice: replay one recording at a time")
        seen.add(item.problem.id)
    if not any(item.attempts for item in problems):
        raise InputError("no recorded attempt can be replayed: all of them were stopped, lost, or are checks")


def _with_samples(item: RecordedProblem) -> RecordedProblem:
    pairs = [pair for pair in zip(item.attempts, item.correct, strict=True) if _is_sample(pair[0])]
    attempts, correct = tuple(attempt for attempt, _ in pairs), tuple(right for _, right in pairs)
    return replace(item, attempts=attempts, correct=correct, checks=())


def _is_sample(attempt: Attempt) -> bool:
    """Whether it tells what the model can do: nobody stopped it, and the generator did not lose it."""
    return takes_place(attempt) and attempt.failure not in ("stopped", "interrupted")


def _with_equal_lengths(item: RecordedProblem) -> RecordedProblem:
    return replace(item, attempts=tuple(replace(attempt, num_tokens=1) for attempt in item.attempts))


def _first_without(problems: Sequence[RecordedProblem], name: str) -> str | None:
    """Where an attempt has an answer and no cost; one without an answer may have ended before it began."""
    for item in problems:
        for attempt in item.attempts:
            if attempt.answer is not None and not getattr(attempt, name) > 0:
                return f"attempt {attempt.index} at problem {item.problem.id!r}"
    return None
