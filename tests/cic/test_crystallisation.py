"""When a growing pool has settled, how far it is from the critical point, and the temperature of what comes next."""

from __future__ import annotations

import math
from typing import Any

import pytest
from cic_pools import pools, told, votes_for
from hypothesis import given
from hypothesis import strategies as st

from mathlete.cic.crystallisation import UiptParameters, annealed_temperature, critical_distance, last_transition
from mathlete.cic.disorder import published_entropy
from mathlete.cic.majority import votes_of
from mathlete.cic.ncd import cohesion, trace_of
from mathlete.core.attempt import Attempt

SAME = "Let the sides be a and b. Then a + b = 12 and ab = 35, so the sides are 5 and 7 and the answer is 35."
OTHER = "Count lattice paths by the reflection principle: there are C(8, 4) - C(8, 3) = 14 of them in all."


def test_the_balance_by_hand() -> None:
    pool = told(("35", SAME), ("14", OTHER), ("35", SAME + " Check."), ("35", SAME + " Done."))
    transition = last_transition(votes_of(pool))
    assert transition is not None and transition.phi_change is not None
    traces = [trace_of(a) for a in pool]
    before, after = cohesion(traces[:3]), cohesion(traces)
    assert before is not None and after is not None
    assert transition.phi_change == pytest.approx(after - before)
    change = published_entropy(["35", "14", "35", "35"]) - published_entropy(["35", "14", "35"])
    assert transition.entropy_change == pytest.approx(change)
    assert transition.balance == pytest.approx(abs(after - before + 0.5 * change))
    assert transition.phi_change > 0 > transition.entropy_change


def test_a_pool_that_settles_crystallises_and_one_that_comes_apart_does_not() -> None:
    settling = told(("35", SAME), ("14", OTHER), *((("35", SAME),) * 4))
    transition = last_transition(votes_of(settling))
    assert transition is not None and transition.crystallised and not transition.unanimous
    apart = last_transition(votes_of([*settling, *told(("99", "a guess"))]))
    assert apart is not None and not apart.crystallised


def test_a_step_out_of_balance_does_not_count() -> None:
    pool = told(("35", SAME), ("60", OTHER), ("35", SAME), ("35", SAME))
    wide, published = (last_transition(votes_of(pool), UiptParameters(max_balance=b)) for b in (1.0, 0.1))
    assert wide is not None and wide.crystallised
    assert published is not None and not published.crystallised, "cohesion rose by more than disorder fell"


def test_pitfall_a_unanimous_pool_stops_though_nothing_falls() -> None:
    for votes in (votes_for("7", "7", "7"), votes_of(told(*[("7", SAME)] * 3))):
        transition = last_transition(votes)
        assert transition is not None and transition.entropy_change == 0
        assert transition.unanimous and transition.crystallised
    assert last_transition(votes_for("7", "7")) is None, "too few"


def test_without_texts_only_unanimity_settles() -> None:
    transition = last_transition(votes_for("7", "8", "7", "7"))
    assert transition is not None and transition.balance is None and not transition.crystallised


@given(pools)
def test_any_pool_is_judged(pool: list[Attempt]) -> None:
    votes = votes_of(pool)
    transition = last_transition(votes)
    assert (transition is None) == (len(votes) < 3)
    if transition is not None and transition.unanimous:
        assert transition.crystallised


def test_nu_by_hand() -> None:
    assert critical_distance(0.7632, 0.5) == 0
    assert critical_distance(0.0, 1.0) == pytest.approx(math.sqrt(0.7632**2 + 0.25) / math.sqrt(2))
    assert critical_distance(0.5, 0.5, critical_temperature=0.5) == 0


@given(st.floats(0, 1), st.floats(0, 1))
def test_nu_is_bounded(temperature: float, order: float) -> None:
    assert 0 <= critical_distance(temperature, order) <= 0.6455


def test_the_temperature_falls_with_order() -> None:
    assert annealed_temperature(0.0, False) == 1.4
    assert annealed_temperature(0.5, False) == pytest.approx(0.85)
    assert annealed_temperature(1.0, False) == pytest.approx(0.3)
    assert annealed_temperature(0.2, True) == 0.3
    steps = [annealed_temperature(k / 10, False) for k in range(11)]
    assert steps == sorted(steps, reverse=True)


@pytest.mark.parametrize(("field", "value"), [("entropy_weight", -1), ("max_balance", 0), ("min_answers", 1)])
def test_a_parameter_out_of_range_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        UiptParameters(**{field: value})
