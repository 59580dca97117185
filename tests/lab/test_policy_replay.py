"""Policies over recorded attempts: what they come to, what they spend, and what thin recordings are told."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from recorded_pool import attempt, pool, problem

from mathlete.cic.majority import Majority
from mathlete.core.attempt import Turn
from mathlete.core.errors import InputError
from mathlete.core.selection import Evidence
from mathlete.lab.metrics import majority_score
from mathlete.lab.policy_replay import PolicyReplay, replay_curve, replay_policy
from mathlete.lab.recorded import RecordedProblem
from mathlete.triad.recorded_source import Speed

POOL = pool(24, 8)


def test_fixed_with_majority_is_the_majority_of_all() -> None:
    figures = replay_policy(POOL, PolicyReplay("fixed", attempts=8, orders=0))
    votes = [Majority().select(item.problem, item.attempts).answer == "7" for item in POOL]
    assert figures.accuracy.value == pytest.approx(sum(votes) / len(POOL))
    slow = [majority_score([a.answer for a in item.attempts], item.correct) for item in POOL]
    assert figures.majority.value == pytest.approx(math.fsum(slow) / len(slow))
    assert figures.vs_majority.value == pytest.approx(figures.accuracy.value - figures.majority.value)
    assert (figures.token_share, figures.attempts, figures.num_short, figures.num_problems) == (1.0, 8.0, 0, 24)
    assert figures.tokens == pytest.approx(sum(a.num_tokens for item in POOL for a in item.attempts) / 24)
    assert figures.stop_reasons == {"all attempts finished": 24}
    assert figures.answers == sum(a.answer is not None for item in POOL for a in item.attempts) / 24
    json.dumps(figures.as_dict())


def test_a_settled_vote_saves_tokens_and_says_why_it_stopped() -> None:
    vote = replay_policy(POOL, PolicyReplay("vote", orders=3))
    assert vote.token_share is not None and 0.4 < vote.token_share < 0.95
    assert vote.attempts <= 8 and vote.answers < 8
    assert sum(vote.stop_reasons.values()) == 3 * 24
    assert "the leader cannot be caught by # outstanding attempts" in vote.stop_reasons
    assert abs(vote.vs_majority.value) < 0.1


@pytest.mark.parametrize("stop", ["four_equal", "uncatchable", "beta_posterior", "never"])
def test_the_stopping_rule_is_that_of_live_solving(stop: str) -> None:
    told = replay_policy([problem("p", ["7"] * 8)], PolicyReplay("vote", stop=stop, slots=1, orders=0))
    launched = {"four_equal": 4, "uncatchable": 4, "beta_posterior": 4, "never": 8}[stop]
    assert told.attempts == launched, told.stop_reasons


def test_what_attempts_at_once_cost_more() -> None:
    """With one slot nothing is in flight when a vote is settled; with eight, seven attempts are half done."""
    item = [problem("p", ["7"] * 8)]
    alone, together = (replay_policy(item, PolicyReplay("vote", slots=n, orders=0)) for n in (1, 8))
    assert alone.tokens is not None and together.tokens is not None and alone.tokens < together.tokens


def test_the_same_seed_is_the_same_replay() -> None:
    config = PolicyReplay("triad", orders=2)
    assert replay_policy(POOL, config) == replay_policy(POOL, config)
    assert replay_policy(POOL, config) != replay_policy(POOL, replace(config, seed=1))


def test_k_attempts_are_sub_sampled() -> None:
    """Over all orders, two of the pool are any two of it."""
    items = [problem("p", ["7", "7", "1", None])]
    told = replay_policy(items, PolicyReplay("fixed", attempts=2, orders=400))
    pairs = [(a, b) for i, a in enumerate("77x-") for j, b in enumerate("77x-") if i != j]
    expected = sum(
        1.0 if {a, b} <= {"7", "-"} and "7" in (a, b) else 0.5 if {a, b} == {"7", "x"} else 0.0 for a, b in pairs
    ) / len(pairs)  # fmt: skip
    assert told.majority.value == pytest.approx(expected, abs=0.06)
    assert told.attempts == 2


@pytest.mark.parametrize("policy", ["fixed", "vote", "triad"])
def test_a_budget_of_tokens_is_kept(policy: Any) -> None:
    whole = sum(a.num_tokens for item in POOL for a in item.attempts)
    told = replay_policy(POOL, PolicyReplay(policy, token_budget=whole // 3, orders=1, slots=8))
    assert told.tokens is not None
    assert told.tokens * 24 <= whole // 3 + 8 * 10, "but for what is in flight in one step"
    assert told.stop_reasons.get("the run's tokens are spent", 0) > 0 or policy != "fixed"


@pytest.mark.parametrize("policy", ["fixed", "vote", "triad"])
def test_a_budget_of_seconds_is_kept(policy: Any) -> None:
    told = replay_policy(POOL, PolicyReplay(policy, budget_s=60.0, orders=2, slots=8))
    assert told.seconds is not None and told.seconds <= 60.0 + 1e-6
    free = replay_policy(POOL, PolicyReplay(policy, orders=2, slots=8))
    assert free.seconds is not None and free.seconds > 60.0
    assert told.accuracy.value <= free.accuracy.value and told.no_answer >= free.no_answer


def test_a_speed_takes_the_place_of_recorded_seconds() -> None:
    items = [problem("p", ["7"], num_tokens=500)]
    told = replay_policy(items, PolicyReplay("fixed", attempts=1, speed=Speed(10.0), orders=0))
    assert told.seconds == pytest.approx(50.0, abs=0.06)
    assert replay_policy(items, PolicyReplay("fixed", attempts=1, orders=0)).seconds == pytest.approx(2.0, abs=0.06)


def test_curves_over_attempts_and_budgets() -> None:
    points = replay_curve(POOL, PolicyReplay("fixed", orders=2), attempts=(1, 2, 4, 8))
    assert [point.replay.attempts for point in points] == [1, 2, 4, 8]
    tokens = [point.tokens or 0.0 for point in points]
    assert tokens == sorted(tokens) and points[0].accuracy.value < points[-1].accuracy.value
    told: list[tuple[int, int]] = []
    budgets = replay_curve(
        POOL, PolicyReplay("vote", orders=1), budgets_s=(20.0, 200.0), on_progress=lambda n, num: told.append((n, num))
    )
    assert budgets[0].accuracy.value <= budgets[1].accuracy.value
    assert told[-1] == (48, 48) and [n for n, _ in told] == sorted(n for n, _ in told)
    assert len(replay_curve(POOL, PolicyReplay("triad", orders=1), token_budgets=(2_000, 9_000))) == 2
    with pytest.raises(ValueError, match="give one of them"):
        replay_curve(POOL, PolicyReplay(), attempts=(1,), budgets_s=(1.0,))


# --- what selectors are shown ---


def test_selectors_see_attempts_as_they_were_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = (Turn("It is 7.", num_tokens=3), Turn("", tool_text="7"))
    fields: dict[str, Any] = {"turns": turns, "features": {"mean_entropy": 0.25}, "pillar": "reasoning", "model": "m"}
    item = problem("p", ["7", "7"])
    item = replace(item, attempts=tuple(replace(attempt, **fields) for attempt in item.attempts))
    seen = []
    select = Majority.select

    def watch(self: Majority, asked: Any, attempts: Any) -> Any:
        seen.append(tuple(attempts))
        return select(self, asked, attempts)

    monkeypatch.setattr(Majority, "select", watch)
    replay_policy([item], PolicyReplay("fixed", attempts=2, orders=0))
    assert {len(attempts) for attempts in seen} == {2}
    for shown, recorded in zip(seen[-1], item.attempts, strict=True):
        assert replace(shown, elapsed_s=recorded.elapsed_s) == recorded


def test_checks_later_rounds_and_attempts_that_were_stopped_are_left_out() -> None:
    evidence = (Evidence("sympy", "7", "SUPPORTED", answer="7"),)
    more = (
        attempt("p", 1, "1", failure="stopped"),
        attempt("p", 2, None, failure="interrupted"),
        attempt("p", 3, None, failure="generator_error", num_tokens=0, elapsed_s=0.0),
        attempt("p", 4, "1", round=2, about=("7", "1")),
        attempt("p", 5, None, pillar="sympy_check", about=("7",), evidence=evidence, failure=None),
    )
    item = problem("p", ["7"])
    item = replace(item, attempts=(*item.attempts, *more), correct=(True, *[False] * 5))
    told = replay_policy([item], PolicyReplay("fixed", attempts=1, orders=5))
    assert (told.accuracy.value, told.attempts, told.num_short) == (1.0, 1.0, 0)


# --- thin recordings ---


def test_pools_smaller_than_k_get_what_there_is() -> None:
    told = replay_policy([problem("p", ["7", "1", "7"]), problem("q", ["7"] * 8)], PolicyReplay("fixed", orders=2))
    assert (told.num_short, told.accuracy.value, told.attempts) == (1, 1.0, 5.5)


def test_a_problem_without_attempts_is_wrong() -> None:
    told = replay_policy([problem("p", []), problem("q", ["7"])], PolicyReplay("vote", attempts=2, orders=1))
    assert (told.accuracy.value, told.no_answer, told.num_short) == (0.5, 0.5, 2)


def thin(**fields: Any) -> list[RecordedProblem]:
    return [problem("p", ["7"]), problem("q", ["7", None, "1"], **fields)]


@pytest.mark.parametrize(
    ("fields", "config", "complaint"),
    [
        ({"num_tokens": 0}, {"token_budget": 100}, "attempt 0 at problem 'q' does not say how many tokens"),
        ({"num_tokens": 0}, {"speed": Speed(1.0)}, "a speed in tokens a second needs them"),
        ({"elapsed_s": 0.0}, {"budget_s": 60.0}, "seconds it took, and a budget in seconds needs them: give a speed"),
        ({"elapsed_s": 0.0, "num_tokens": 0}, {"budget_s": 60.0}, "needs them: leave the budget out"),
    ],
)
def test_what_a_budget_needs_is_asked_for(fields: dict[str, Any], config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        replay_policy(thin(**fields), PolicyReplay("vote", **config))


@pytest.mark.parametrize(
    ("fields", "knows"),
    [({"elapsed_s": 0.0}, (True, False)), ({"num_tokens": 0}, (False, True)),
     ({"elapsed_s": 0.0, "num_tokens": 0}, (False, False))],
)  # fmt: skip
def test_without_a_budget_nothing_is_needed(fields: dict[str, Any], knows: tuple[bool, bool]) -> None:
    told = replay_policy(thin(**fields), PolicyReplay("vote", attempts=3, orders=2))
    assert (told.tokens is not None, told.seconds is not None) == knows
    assert (told.token_share is not None) == knows[0]
    assert told.attempts == 2.0


def test_an_attempt_without_answer_may_have_cost_nothing() -> None:
    item = problem("p", ["7", None])
    item = replace(item, attempts=(item.attempts[0], replace(item.attempts[1], num_tokens=0, elapsed_s=0.0)))
    assert replay_policy([item], PolicyReplay("fixed", attempts=2, token_budget=1000, orders=0)).accuracy.value == 1.0


def test_nothing_to_replay_and_one_id_twice() -> None:
    with pytest.raises(InputError, match="there are no recorded problems"):
        replay_policy([], PolicyReplay())
    with pytest.raises(InputError, match="no recorded attempt can be replayed"):
        replay_policy([problem("p", ["7"], failure="stopped")], PolicyReplay())
    with pytest.raises(InputError, match="problem 'p' is recorded twice"):
        replay_policy([problem("p", ["7"]), problem("p", ["7"])], PolicyReplay())


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"policy": "oracle"}, "policy must be one of"),
        ({"selector": "best"}, "selector must be one of"),
        ({"stop": "now"}, "stop must be one of"),
        ({"attempts": 0}, "attempts must be >= 1"),
        ({"slots": 0}, "slots must be >= 1"),
        ({"orders": -1}, "orders must be >= 0"),
        ({"budget_s": 0.0}, "budget_s must be > 0"),
        ({"token_budget": -5}, "token_budget must be > 0"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PolicyReplay(**fields)
