"""Budgets over a clock that the test moves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.budget import Budget
from mathlete.core.errors import BudgetExceeded

seconds = st.floats(0, 1e6)


class HandClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_time_runs_out_at_the_deadline() -> None:
    clock = HandClock()
    budget = Budget.of_seconds(5, clock)
    assert budget.remaining_s() == 5
    budget.check()
    clock.now_s = 105
    assert budget.remaining_s() == 0
    assert budget.exhausted()
    with pytest.raises(BudgetExceeded) as caught:
        budget.check()
    assert (caught.value.kind, caught.value.value, caught.value.limit) == ("time", 105, 105)
    clock.now_s = 1000
    assert budget.remaining_s() == 0, "never negative"


def test_without_limits_nothing_runs_out() -> None:
    budget = Budget(clock=HandClock())
    assert budget.remaining_s() == math.inf
    assert budget.spend(10**9) == budget
    assert not budget.exhausted()
    budget.check()


def test_tokens_run_out() -> None:
    budget = Budget(tokens_left=10, clock=HandClock())
    assert budget.spend(4).tokens_left == 6
    assert budget.tokens_left == 10, "a budget does not change"
    spent = budget.spend(11)
    assert spent.tokens_left == 0 and spent.exhausted()
    with pytest.raises(BudgetExceeded, match="tokens"):
        spent.check()


@given(whole_s=seconds, part_s=seconds, passed_s=seconds)
def test_a_part_never_outlasts_the_whole(whole_s: float, part_s: float, passed_s: float) -> None:
    clock = HandClock()
    whole = Budget.of_seconds(whole_s, clock)
    clock.now_s += passed_s
    part = whole.split(part_s)
    assert 0 <= part.remaining_s() <= whole.remaining_s()
    assert part.remaining_s() <= part_s or math.isclose(part.remaining_s(), part_s, abs_tol=1e-6)


@given(left_s=st.floats(-10, 10), tokens=st.none() | st.integers(0, 2))
def test_check_raises_exactly_when_exhausted(left_s: float, tokens: int | None) -> None:
    budget = Budget(100.0 + left_s, tokens, HandClock())
    try:
        budget.check()
        raised = False
    except BudgetExceeded:
        raised = True
    assert raised == budget.exhausted()
