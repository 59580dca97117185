"""One clock over many problems: simulated contests never overrun and starve nobody."""

from __future__ import annotations

import heapq
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.contest.clock import attempts_affordable, deadline_s, parallel_problems, share_s, usable_s

weights = st.floats(0.01, 100)
parts_used = st.floats(0, 1)


@given(budget_s=st.floats(0, 1e6), reserve_s=st.floats(0, 1e6))
def test_the_reserve_is_at_most_a_tenth(budget_s: float, reserve_s: float) -> None:
    usable = usable_s(budget_s, reserve_s)
    assert 0.9 * budget_s <= usable * (1 + 1e-12) <= budget_s * (1 + 1e-12)
    assert usable >= budget_s - reserve_s - 1e-9 * budget_s


def test_a_budget_of_a_second_still_solves() -> None:
    assert usable_s(1.0, 20.0) == pytest.approx(0.9)
    assert usable_s(0.0, 20.0) == 0
    assert usable_s(math.inf, 20.0) == math.inf


@given(remaining_s=st.floats(-1e3, 1e6), weight=weights, others=st.floats(0, 1e4), num_parallel=st.integers(1, 100))
def test_a_share_never_exceeds_what_remains(
    remaining_s: float, weight: float, others: float, num_parallel: int
) -> None:
    share = share_s(remaining_s, weight=weight, total_weight=weight + others, num_parallel=num_parallel)
    assert 0 <= share <= max(0.0, remaining_s)
    assert share > 0 or remaining_s <= 1e-300


@given(
    budget_s=st.floats(0.001, 1e5),
    problems=st.lists(st.tuples(weights, parts_used), min_size=1, max_size=12),
)
def test_one_after_another_in_any_order_the_shares_fit(budget_s: float, problems: list[tuple[float, float]]) -> None:
    left_s, unresolved = budget_s, math.fsum(weight for weight, _ in problems)
    granted = []
    for index, (weight, used) in enumerate(problems):
        unresolved = math.fsum(w for w, _ in problems[index:])
        share = share_s(left_s, weight=weight, total_weight=unresolved, num_parallel=1)
        # What was left at the start in proportion to weight is what a problem can count on, whatever came before.
        assert share >= budget_s * weight / math.fsum(w for w, _ in problems) * (1 - 1e-9)
        granted.append(share * used)
        left_s -= share * used
    assert math.fsum(granted) <= budget_s * (1 + 1e-9)


@given(
    problems=st.lists(parts_used, min_size=1, max_size=14),
    num_lanes=st.integers(1, 5),
)
def test_several_at_a_time_end_by_the_end_and_each_gets_time(problems: list[float], num_lanes: int) -> None:
    """Lanes take the next problem as soon as they are free; a problem uses a part of its share."""
    budget_s = 1000.0
    busy: list[float] = []  # when each open problem ends
    now_s = 0.0
    for index, used in enumerate(problems):
        if len(busy) == num_lanes:
            now_s = max(now_s, heapq.heappop(busy))
        num_unresolved = len(busy) + len(problems) - index
        share = share_s(budget_s - now_s, weight=1.0, total_weight=float(num_unresolved), num_parallel=float(num_lanes))
        assert share > 0, f"problem {index} of {len(problems)} got no time at {now_s}"
        heapq.heappush(busy, now_s + used * share)
    assert max(busy) <= budget_s * (1 + 1e-9)


def test_equal_problems_get_equal_rounds() -> None:
    assert share_s(600, weight=1, total_weight=6, num_parallel=2) == pytest.approx(200)
    assert share_s(600, weight=2, total_weight=6, num_parallel=1) == pytest.approx(200)
    assert share_s(600, weight=1, total_weight=1, num_parallel=4) == 600


@pytest.mark.parametrize(("weight", "total"), [(0, 1), (-1, 1), (2, 1), (math.nan, 1), (1, math.nan), (1, 0)])
def test_weights_that_make_no_sense(weight: float, total: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        share_s(10, weight=weight, total_weight=total, num_parallel=1)


def test_the_last_problems_may_use_all_that_is_left() -> None:
    assert deadline_s(50, 100, num_waiting=3) == 50
    assert deadline_s(50, 100, num_waiting=0) == 100
    assert deadline_s(150, 100, num_waiting=3) == 100, "never after the end"


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_at_least_one_problem_is_worked_on(max_in_flight: int, attempts: int) -> None:
    num = parallel_problems(max_in_flight, attempts)
    assert num >= 1
    assert num == 1 or num * attempts <= max_in_flight or attempts == 0


@given(
    remaining_s=st.floats(-10, 1e6),
    tokens_per_s=st.floats(0.1, 1e4),
    num_problems=st.integers(1, 200),
    tokens_per_attempt=st.floats(1, 1e4),
    wanted=st.integers(1, 64),
)
def test_what_is_planned_fits_into_what_remains(
    remaining_s: float, tokens_per_s: float, num_problems: int, tokens_per_attempt: float, wanted: int
) -> None:
    num = attempts_affordable(
        remaining_s,
        tokens_per_s=tokens_per_s,
        num_problems=num_problems,
        tokens_per_attempt=tokens_per_attempt,
        wanted=wanted,
    )
    assert 0 <= num <= wanted
    assert num * num_problems * tokens_per_attempt <= max(0.0, tokens_per_s * remaining_s)
