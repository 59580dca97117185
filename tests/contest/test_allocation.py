"""Value and price of one more attempt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mathlete.contest.allocation import Demand, attempts_left, counts_of, worth_another, worth_waiting
from mathlete.core.attempt import Attempt, Failure
from mathlete.core.policy import Launched, Outlook, PoolState
from mathlete.core.problem import Problem

PROBLEM = Problem("p", "How many?")
OUTLOOK = Outlook(10_000.0, None, 20, 1, 100.0, 5_000.0)


def attempt(index: int, answer: str | None, tokens: int = 5_000, failure: Failure | None = None) -> Attempt:
    failure = failure or (None if answer else "no_answer")
    return Attempt(f"p#{index}", "p", index, "code", 0, 0.8, answer, None, (), tokens, 60.0, failure=failure)


def state(answers: str, tokens: int = 5_000, outlook: Outlook | None = OUTLOOK, in_flight: int = 0) -> PoolState:
    """A pool: each letter is an answer, a dot is none."""
    pool = tuple(attempt(i, None if letter == "." else letter, tokens) for i, letter in enumerate(answers))
    flying = tuple(Launched("code", 1) for _ in range(in_flight))
    return PoolState(PROBLEM, pool, in_flight, len(pool) + in_flight, 1.0, 1_000.0, None, flying, 0, outlook)


def test_value_falls_with_agreement() -> None:
    values = [worth_another(state(pool)).value for pool in ("ab", "aab", "aaab", "aaaaab")]
    assert values == sorted(values, reverse=True) and values[-1] < values[0] / 3


@pytest.mark.parametrize("pool", ["aaaaa", "aaaaaaab", "aaaaaa."])
def test_a_settled_pool_is_not_worth_another_even_when_it_is_free(pool: str) -> None:
    worth = worth_another(state(pool, outlook=replace(OUTLOOK, num_waiting=0)))
    assert worth.price == 0 and not worth.pays
    assert "another attempt adds" in worth.reason


@pytest.mark.parametrize("pool", ["", "ab", "abc", ".", "..", "aabb"])
def test_an_open_pool_is_worth_another_when_it_is_free(pool: str) -> None:
    assert worth_another(state(pool, outlook=replace(OUTLOOK, num_waiting=0))).pays
    assert worth_another(state(pool, outlook=None)).pays


@given(st.floats(1.0, 1e6), st.floats(1.0, 1e6), st.integers(1, 60))
@settings(deadline=None, max_examples=60)
def test_the_price_falls_with_what_is_left_and_rises_with_who_waits(one: float, two: float, waiting: int) -> None:
    less, more = sorted((one, two))
    poor = worth_another(state("ab", outlook=replace(OUTLOOK, remaining_s=less, num_waiting=waiting)))
    rich = worth_another(state("ab", outlook=replace(OUTLOOK, remaining_s=more, num_waiting=waiting)))
    crowded = worth_another(state("ab", outlook=replace(OUTLOOK, remaining_s=more, num_waiting=waiting + 5)))
    assert poor.price >= rich.price > 0 and crowded.price >= rich.price
    assert poor.value == rich.value == crowded.value
    assert rich.pays or not poor.pays


def test_tokens_bind_where_they_are_scarcer_than_time() -> None:
    assert attempts_left(OUTLOOK) == pytest.approx(0.8 * 10_000 * 100 / 5_000)
    assert attempts_left(replace(OUTLOOK, tokens_left=50_000)) == pytest.approx(10)
    assert attempts_left(replace(OUTLOOK, tokens_per_s=None)) is None
    scarce = worth_another(state("ab", outlook=replace(OUTLOOK, tokens_left=200_000)))
    assert scarce.price > worth_another(state("ab")).price


def test_long_attempts_cost_more() -> None:
    assert worth_another(state("ab", tokens=20_000)).price > 2 * worth_another(state("ab", tokens=5_000)).price


def test_what_is_in_flight_lowers_the_value_of_more_and_may_be_worth_waiting_for() -> None:
    assert worth_another(state("ab", in_flight=3)).value < worth_another(state("ab")).value
    flying = state("aabb", in_flight=2)
    assert worth_waiting(flying).value == worth_another(state("aabb")).value
    checks = replace(flying, in_flight=(Launched("sympy_check", 1, ("a",)),) * 2)
    assert worth_another(checks).value == worth_another(state("aabb")).value, "checks do not vote"


def test_a_sure_selector_ends_what_the_votes_leave_open() -> None:
    unsure = worth_another(state("aabb"), confidence=0.5, selected="a")
    sure = worth_another(state("aabb"), confidence=0.99, selected="a")
    assert sure.value < unsure.value and sure.chance == pytest.approx(0.98, abs=0.011)


def test_an_attempt_that_cannot_end_in_time_is_worth_nothing() -> None:
    in_time, late = state("ab"), replace(state("ab"), remaining_s=10.0)
    assert worth_another(late).value < 0.01 * worth_another(in_time).value
    assert worth_another(replace(late, remaining_s=0.0)).value == 0


def test_who_votes() -> None:
    pool = [attempt(0, "a"), attempt(1, "b"), attempt(2, "b"), attempt(3, None), attempt(4, None, failure="stopped")]
    pool += [attempt(5, None, failure="generator_error"), replace(attempt(6, None), pillar="sympy_check")]
    assert counts_of(pool) == ((2, 1), 1)
    assert counts_of(pool, selected="a") == ((1, 2), 1)


def test_a_demand_curve_is_read_between_its_points() -> None:
    demand = Demand((0.1, 0.01, 0.001), (2.0, 4.0, 8.0))
    assert demand.price_at(1) == 0.1 and demand.price_at(20) == 0.001
    assert demand.price_at(3) == pytest.approx(0.1**0.5 * 0.01**0.5)
    with pytest.raises(ValueError, match="prices must fall"):
        Demand((0.1, 0.2), (1.0, 2.0))
    with pytest.raises(ValueError, match="as many prices"):
        Demand((0.1,), (1.0,))


def test_waiting_for_one_alone_costs_what_stands_idle() -> None:
    """Attempts of 60 s and 5,000 tokens: at 333 tokens a second, four run at once on average."""
    busy = replace(OUTLOOK, tokens_per_s=333.0)
    few, many = (worth_waiting(state("ab", outlook=busy, in_flight=n)) for n in (1, 4))
    assert few.price == pytest.approx(4 * many.price, rel=0.01) and few.value == many.value
    shared = worth_waiting(state("ab", outlook=replace(busy, num_open=2), in_flight=1))
    assert shared.price < few.price, "others use what one leaves"
    last = worth_waiting(state("ab", outlook=replace(busy, num_waiting=0), in_flight=1))
    assert last.price == 0 and last.pays
