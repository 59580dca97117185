"""What a session expects of attempts before it has seen any, and what it learns."""

from __future__ import annotations

import pytest

from mathlete.core.attempt import Attempt, Failure
from mathlete.triad.pace import Pace


def attempt(num_tokens: int, failure: Failure | None = None, pillar: str = "code") -> Attempt:
    return Attempt("p#0", "p", 0, pillar, 0, 0.8, None, None, (), num_tokens, 1.0, failure=failure)


@pytest.mark.parametrize("max_tokens", [1_024, 65_536])
def test_the_first_outlook_goes_by_what_an_attempt_may_take(max_tokens: int) -> None:
    pace = Pace(8, 1_000.0, max_tokens)
    assert 0.3 * max_tokens < pace.tokens_per_attempt < 0.6 * max_tokens
    needed_s = 10 * 4 * pace.tokens_per_attempt / 1_000.0 / 0.8
    assert pace.affordable(needed_s + 1, 10) == 4 and pace.affordable(needed_s - 1, 10) == 3


def test_attempts_that_ended_by_themselves_are_learned_from() -> None:
    pace = Pace(8, None, 1_000)
    for _ in range(400):
        pace.note(attempt(100))
    for told in (attempt(9_999, "stopped"), attempt(9_999, None, "sympy_check"), attempt(0, "generator_error")):
        pace.note(told)
    assert pace.tokens_per_attempt == pytest.approx(100, rel=0.05)


def test_the_speed_is_the_sessions_own_once_it_has_gone_on() -> None:
    pace = Pace(8, None, 1_000)
    assert pace.affordable(100.0, 1) is None
    pace.note_speed(900, 60.0)
    assert pace.tokens_per_s is None
    pace.note_speed(6_000, 60.0)
    assert pace.tokens_per_s == 100.0
