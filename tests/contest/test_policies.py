"""Policies drive simulated pools: they always end, and never ask for more than they may."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.cic.majority import FALLBACK
from mathlete.contest.policy import ALL_FINISHED, OUT_OF_TIME, FixedPolicy, VotePolicy
from mathlete.contest.stop_rules import STOP_RULES, FirstOf, Uncatchable, make_stop_rule
from mathlete.core.attempt import Attempt, Failure
from mathlete.core.policy import Launch, Launched, Policy, PoolState, Stop, Wait
from mathlete.core.problem import Problem

PROBLEM = Problem("p", "How many?")
LOST = "generator_error"


def attempt(index: int, answer: str | None, failure: Failure | None = None) -> Attempt:
    return Attempt(f"p#{index}", "p", index, "code", 1, 0.8, answer, None, (), 1, 1.0, failure=failure)


def state(attempts: list[Attempt], in_flight: int = 0, remaining_s: float = 10.0) -> PoolState:
    return PoolState(PROBLEM, tuple(attempts), in_flight, len(attempts) + in_flight, 1.0, remaining_s)


def pool_of(*answers: str | None) -> list[Attempt]:
    return [attempt(index, None if a == LOST else a, LOST if a == LOST else None) for index, a in enumerate(answers)]


@dataclass
class Simulation:
    """A pool whose attempts finish in random order, one a second; outcomes come from a script."""

    outcomes: list[str | None]
    noise: random.Random
    time_s: float = 1e9
    max_in_flight: int = 0
    num_launched: int = 0
    finished: list[Attempt] = field(default_factory=list)
    in_flight: list[int] = field(default_factory=list)

    def run(self, policy: Policy) -> Stop:
        elapsed_s = 0.0
        for _ in range(500):
            seen = PoolState(
                PROBLEM,
                tuple(self.finished),
                len(self.in_flight),
                self.num_launched,
                elapsed_s,
                max(0.0, self.time_s - elapsed_s),
            )
            action = policy.decide(seen)
            assert action == policy.decide(seen), "pure"
            match action:
                case Stop():
                    return action
                case Launch(n=n):
                    assert n >= 1
                    self.in_flight += range(self.num_launched, self.num_launched + n)
                    self.num_launched += n
                    self.max_in_flight = max(self.max_in_flight, len(self.in_flight))
                case Wait():
                    assert self.in_flight, "waiting for nothing"
                    elapsed_s += 1
                    index = self.in_flight.pop(self.noise.randrange(len(self.in_flight)))
                    outcome = self.outcomes[index % len(self.outcomes)]
                    self.finished.append(attempt(index, None, LOST) if outcome == LOST else attempt(index, outcome))
        pytest.fail("the policy does not come to an end")


outcome_lists = st.lists(st.sampled_from(["1", "1", "2", "3", None, LOST]), min_size=1, max_size=20)
settings_ = st.fixed_dictionaries({"attempts": st.integers(1, 10)})


@given(outcome_lists, settings_, st.sampled_from([FixedPolicy, VotePolicy]), st.integers(0, 99), st.integers(0, 12))
def test_every_pool_ends(
    outcomes: list[str | None], chosen: dict[str, Any], kind: type[FixedPolicy | VotePolicy], seed: int, time_s: int
) -> None:
    for limit_s in (1e9, float(time_s)):
        simulation = Simulation(outcomes, random.Random(seed), limit_s)
        stop = simulation.run(kind(**chosen))
        answers = Counter(a.answer for a in simulation.finished if a.answer is not None)
        assert stop.reason
        if answers:
            assert answers[stop.selection.answer] == max(answers.values())
        else:
            assert stop.selection.rule == FALLBACK
        assert simulation.num_launched <= 2 * chosen["attempts"]
        counted = [a for a in simulation.finished if a.failure != LOST]
        assert len(counted) + len(simulation.in_flight) <= chosen["attempts"]
        assert simulation.max_in_flight <= chosen["attempts"]


@given(outcome_lists, settings_, st.integers(0, 99))
def test_fixed_gives_every_problem_its_attempts(outcomes: list[str | None], chosen: dict[str, Any], seed: int) -> None:
    simulation = Simulation(outcomes, random.Random(seed))
    stop = simulation.run(FixedPolicy(**chosen))
    assert stop.reason == ALL_FINISHED
    assert not simulation.in_flight
    counted = [a for a in simulation.finished if a.failure != LOST]
    assert len(counted) == chosen["attempts"] or simulation.num_launched == 2 * chosen["attempts"]


@given(outcome_lists, settings_, st.integers(0, 99))
def test_vote_never_costs_more_than_fixed(outcomes: list[str | None], chosen: dict[str, Any], seed: int) -> None:
    fixed, vote = (Simulation(outcomes, random.Random(seed)) for _ in range(2))
    fixed.run(FixedPolicy(**chosen))
    vote.run(VotePolicy(**chosen))
    assert len(vote.finished) <= len(fixed.finished)
    assert vote.finished == fixed.finished[: len(vote.finished)]


@given(st.lists(st.sampled_from(["1", "2", None]), min_size=1, max_size=10), st.integers(0, 99))
def test_an_uncatchable_leader_is_what_the_whole_pool_would_have_chosen(outcomes: list[str | None], seed: int) -> None:
    attempts = len(outcomes)
    whole, early = (Simulation(outcomes, random.Random(seed)) for _ in range(2))
    expected = whole.run(FixedPolicy(attempts))
    stopped = early.run(VotePolicy(attempts, rule=Uncatchable()))
    if stopped.reason != ALL_FINISHED:
        assert stopped.selection.answer == expected.selection.answer


def test_fixed_launches_all_then_waits_then_stops() -> None:
    policy = FixedPolicy(attempts=3, temperature=0.6)
    assert policy.decide(state([])) == Launch(3, "code", 0.6)
    assert policy.decide(state([], in_flight=3)) == Wait()
    assert policy.decide(state(pool_of("1", "1"), in_flight=1)) == Wait()
    stop = policy.decide(state(pool_of("1", "1", "2")))
    assert isinstance(stop, Stop) and (stop.selection.answer, stop.reason) == ("1", ALL_FINISHED)


def test_out_of_time_ends_with_what_is_there() -> None:
    for policy in (FixedPolicy(), VotePolicy()):
        stop = policy.decide(state(pool_of("4"), in_flight=7, remaining_s=0))
        assert isinstance(stop, Stop) and (stop.selection.answer, stop.reason) == ("4", OUT_OF_TIME)
        stop = policy.decide(state([], remaining_s=0))
        assert isinstance(stop, Stop) and stop.selection.rule == FALLBACK


def test_a_unanimous_pool_stops_early() -> None:
    policy = VotePolicy(attempts=16)
    stop = policy.decide(state(pool_of("5", "5", "5", "5"), in_flight=12))
    assert isinstance(stop, Stop) and "posterior" in stop.reason
    assert policy.decide(state(pool_of("5", "5", "5"), in_flight=13)) == Wait()


def test_a_resumed_pool_launches_only_what_is_missing() -> None:
    assert FixedPolicy(attempts=8).decide(state(pool_of("1", None, "2"))) == Launch(5, "code", 0.8)


def test_a_lost_attempt_is_tried_again_but_not_for_ever() -> None:
    policy = FixedPolicy(attempts=2)
    assert policy.decide(state(pool_of("1", LOST))) == Launch(1, "code", 0.8)
    assert policy.decide(state(pool_of(LOST, LOST, LOST))) == Launch(1, "code", 0.8)
    stop = policy.decide(state(pool_of(LOST, LOST, LOST, LOST)))
    assert isinstance(stop, Stop) and stop.selection.rule == FALLBACK


@given(outcome_lists, settings_, st.sampled_from(sorted(STOP_RULES)), st.integers(0, 99))
def test_every_pool_ends_under_every_rule(
    outcomes: list[str | None], chosen: dict[str, Any], rule: str, seed: int
) -> None:
    fixed, stopped = (Simulation(outcomes, random.Random(seed)) for _ in range(2))
    fixed.run(FixedPolicy(**chosen))
    stop = stopped.run(VotePolicy(**chosen, rule=make_stop_rule(rule)))
    assert stop.reason
    assert stopped.finished == fixed.finished[: len(stopped.finished)], "the same attempts, as far as they go"
    if rule == "never":
        assert stopped.finished == fixed.finished


def test_without_a_rule_a_vote_policy_is_a_fixed_one() -> None:
    unanimous = state(pool_of(*["5"] * 7), in_flight=1)
    assert VotePolicy(attempts=8, rule=FirstOf()).decide(unanimous) == Wait()
    assert isinstance(VotePolicy(attempts=8).decide(unanimous), Stop)


@pytest.mark.parametrize("kind", [FixedPolicy, VotePolicy])
@pytest.mark.parametrize(("name", "value"), [("attempts", 0), ("temperature", -0.1)])
def test_a_setting_out_of_range_names_its_field(kind: type[Any], name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        kind(**{name: value})


def test_a_vote_gets_what_the_clock_affords() -> None:
    policy = VotePolicy(attempts=8)
    assert policy.decide(replace(state([]), affordable=3)) == Launch(3, "code", 0.8)
    assert policy.decide(replace(state([]), affordable=None)) == Launch(8, "code", 0.8)
    assert policy.decide(replace(state([]), affordable=99)) == Launch(8, "code", 0.8)
    stop = policy.decide(replace(state(pool_of("1", "2", None)), affordable=3))
    assert isinstance(stop, Stop) and stop.reason == "all attempts that the clock affords (3) finished"
    assert FixedPolicy(attempts=8).decide(replace(state([]), affordable=3)) == Launch(8, "code", 0.8)


def test_pillars_take_turns_and_what_was_cut_off_is_made_up_for() -> None:
    policy = FixedPolicy(4, ("code", "reasoning"))
    reasoned = [replace(attempt(i, "1"), pillar="reasoning") for i in (1, 3)]
    assert policy.decide(state([])) == Launch(1, "code", 0.8)
    assert policy.decide(state(pool_of("1"))) == Launch(1, "reasoning", 0.8)
    assert policy.decide(state([], in_flight=1)) == Launch(1, "reasoning", 0.8), "also when nobody tells which flies"
    assert policy.decide(state(reasoned)) == Launch(2, "code", 0.8)
    told = replace(state(reasoned[:1], in_flight=1), in_flight=(Launched("code", 1),))
    assert policy.decide(told) == Launch(1, "code", 0.8)
