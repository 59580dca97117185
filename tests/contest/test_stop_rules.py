"""Every stopping rule: by hand, its edges, and what all of them promise."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.contest.stop_rules import (
    STOP_RULES,
    BetaPosterior,
    Crystallised,
    EqualVotes,
    FirstOf,
    Uncatchable,
    make_stop_rule,
    num_outstanding,
)
from mathlete.core.attempt import Attempt, Turn
from mathlete.core.errors import InputError
from mathlete.core.policy import Launched, PoolState
from mathlete.core.problem import Problem

PROBLEM = Problem("p", "How many?")
SAME = "Let the sides be a and b. Then a + b = 12 and ab = 35, so the sides are 5 and 7."
LOST = "generator_error"


def pool_of(*answers: str | None, text: str = "") -> list[Attempt]:
    turns = (Turn(text),) if text else ()
    return [
        Attempt(f"p#{k}", "p", k, "code", 1, 0.8, None if a == LOST else a, None, turns, 1, 1.0,
                failure="generator_error" if a == LOST else None)
        for k, a in enumerate(answers)
    ]  # fmt: skip


def check(answer: str | None = None) -> Attempt:
    return Attempt("p#99", "p", 99, "sympy_check", 1, 0.8, answer, None, (), 1, 1.0)


def state(attempts: list[Attempt], in_flight: int = 0) -> PoolState:
    return PoolState(PROBLEM, tuple(attempts), in_flight, len(attempts) + in_flight, 1.0, 10.0)


def stops(rule: str, *answers: str | None, most: int = 16) -> bool:
    return make_stop_rule(rule).why_stop(state(pool_of(*answers)), most) is not None


@given(st.lists(st.sampled_from(["1", "2", "700", None, "x"]), max_size=10), st.sampled_from(sorted(STOP_RULES)))
def test_a_rule_is_pure_and_hears_no_checks(answers: list[str | None], name: str) -> None:
    pool = pool_of(*answers)
    reason = make_stop_rule(name).why_stop(state(pool), 16)
    assert reason is None or reason.strip()
    assert make_stop_rule(name).why_stop(state(pool), 16) == reason
    checked = replace(state(pool), attempts=(*pool, check("1"), check("1"), check()), num_launched=len(pool) + 3)
    assert make_stop_rule(name).why_stop(checked, 16) == reason


@pytest.mark.parametrize("name", sorted(STOP_RULES))
def test_pitfall_nobody_stops_an_empty_or_all_null_pool_that_goes_on(name: str) -> None:
    assert not stops(name)
    assert not stops(name, None, None, None, None)


@pytest.mark.parametrize("name", sorted(set(STOP_RULES) - {"never"}))
def test_pitfall_every_rule_stops_a_unanimous_pool(name: str) -> None:
    answers = ["42"] * 5 if name == "imagination_research" else ["42"] * 8
    assert stops(name, *answers, most=15)


def test_an_unknown_name_is_refused_with_the_list() -> None:
    with pytest.raises(InputError, match=r"no stopping rule 'soon'.*never, four_equal, uncatchable"):
        make_stop_rule("soon")


def test_the_document_tells_of_every_rule() -> None:
    document = (Path(__file__).parents[2] / "docs" / "selection.md").read_text("utf-8")
    assert [name for name in STOP_RULES if f"| `{name}` |" not in document] == []


def test_four_equal() -> None:
    assert not stops("four_equal", "1", "1", "1", "2", "2", "2")
    assert stops("four_equal", "1", "2", "1", "2", "1", "2", "1")
    assert EqualVotes(4).why_stop(state(pool_of("7", "7", None, "7", "7", "8")), 8) == "4 of 5 answers are equal"


def test_five_of_seven() -> None:
    assert stops("imagination_research", "1", "1", "2", "1", "3", "1", "1")
    assert not stops("imagination_research", "1", "1", "2", "1", "3", "1", "4", "1"), "5 of 8"
    assert not stops("imagination_research", "1", "1", "1", "1")


def test_uncatchable_with_and_without_a_draw() -> None:
    pool = pool_of("5", "5", "5", "5", "1")  # three to come: 1 could draw level
    for most, loose, strict in ((7, True, True), (8, True, False), (9, False, False)):
        assert (make_stop_rule("uncatchable").why_stop(state(pool), most) is not None) == loose
        assert (make_stop_rule("uncatchable_strict").why_stop(state(pool), most) is not None) == strict
    reason = Uncatchable(strict=False).why_stop(state(pool), 8)
    assert reason == "3 outstanding attempts can at most draw level with the leader"
    assert Uncatchable().why_stop(state(pool), 7) == "the leader cannot be caught by 2 outstanding attempts"


def test_beta_posterior() -> None:
    assert not stops("beta_posterior", "4", "4", "4"), "too few answers"
    assert not stops("beta_posterior", "4", "4", "4", "4", "1"), "posterior 0.891"
    reason = BetaPosterior().why_stop(state(pool_of(*"4444")), 16)
    assert reason == "the leader stays the leader with posterior 0.969"
    assert BetaPosterior(min_answers=1, min_posterior=0.7).why_stop(state(pool_of("4")), 16) is not None


def test_settled_is_either() -> None:
    assert stops("settled", *"4444", most=16), "by the posterior"
    assert stops("settled", *"444", most=5), "by arithmetic"
    assert not stops("settled", *"444", most=6)


def test_huikang_by_hand() -> None:
    assert stops("huikang", "2"), "log 3.25 = 1.18 > 1, alone"
    assert not stops("huikang", "1"), "log 2.25 = 0.81"
    small, large = math.log(1.25 + 5), math.log(1.25 + 500)  # 1.83, 6.22
    assert stops("huikang", "500", "5") == (large - small > 1)
    assert not stops("huikang", "500", "501"), "no margin"
    scattered = [str(1000 + 10 * k) for k in range(8)]
    total = sum(math.log(1.25 + int(a)) for a in [*scattered, "1000"])
    top = 2 * math.log(1001.25)
    assert top > total / (2 + math.log(1 + total)) and stops("huikang", *scattered, "1000")
    assert stops("huikang", "9" * 900)


def test_crystallised() -> None:
    assert not stops("crystallised", "5", "5")
    assert Crystallised().why_stop(state(pool_of("5", "5", "5")), 16) == "all 3 answers are equal"
    settling = [*pool_of("35", text=SAME), *pool_of("14", text="Count paths: 14."), *pool_of(*["35"] * 4, text=SAME)]
    reason = Crystallised().why_stop(state(settling), 16)
    assert reason is not None and reason.startswith("the pool has crystallised: cohesion rose by 0.")
    apart = [*settling, *pool_of("99", text="A guess.")]
    assert Crystallised().why_stop(state(apart), 16) is None


def test_the_first_rule_with_a_reason_speaks() -> None:
    both = FirstOf((EqualVotes(2), EqualVotes(1)))
    assert both.why_stop(state(pool_of("5")), 8) == "1 of 1 answers are equal"
    assert both.why_stop(state(pool_of("5", "5")), 8) == "2 of 2 answers are equal"
    assert FirstOf().why_stop(state(pool_of(*["5"] * 9)), 8) is None


def test_outstanding_counts_what_may_still_vote() -> None:
    assert num_outstanding(state([]), 8) == 8
    assert num_outstanding(state(pool_of("1", None), in_flight=3), 8) == 6
    assert num_outstanding(state(pool_of(*"12345678")), 8) == 0
    assert num_outstanding(state(pool_of(*[LOST] * 15), in_flight=1), 8) == 1


def test_checks_take_no_place_of_attempts() -> None:
    flying = (Launched("code", 1), Launched("sympy_check", 1, ("5",)))
    pool = [*pool_of("5", "6"), *[check()] * 20]
    seen = replace(state(pool, in_flight=2), in_flight=flying)
    assert num_outstanding(seen, 8) == 6
    assert num_outstanding(seen, 2) == 0


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (EqualVotes, "num_equal", 0), (EqualVotes, "among", 3), (BetaPosterior, "min_answers", 0),
        (BetaPosterior, "min_posterior", 0.4), (BetaPosterior, "min_posterior", 1.0),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_names_its_field(kind: type[Any], field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        kind(**{field: value})


@pytest.mark.parametrize("name", sorted(set(STOP_RULES) - {"huikang"}))
def test_pitfall_half_of_two_answers_is_no_consensus(name: str) -> None:
    """`huikang` stops there: it takes a margin in scores for agreement, see its own test."""
    assert not stops(name, "500", "5")
    assert not stops(name, "500", None)
