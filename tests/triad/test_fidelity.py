"""A run that was recorded is decided again, and held again, as it was; sessions that broke off are no exception."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_run import Session, drive
from test_triad_random import CHECKS, MAX_TOKENS, scripted

from mathlete.cic.registry import SELECTORS
from mathlete.contest.stop_rules import STOP_RULES
from mathlete.core.errors import InputError
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.record import fold_run
from mathlete.core.trace import TraceEvent, encode_problem
from mathlete.lab.redecide import redecide
from mathlete.lab.timeline_replay import replay_timeline
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.driver import Driver
from mathlete.triad.policies import PolicySettings, driving_of, make_policy, weigher_of
from mathlete.triad.progress import RunProgress

PROBLEMS = [Problem(f"p{i}", f"What is {i} + {i}?", AnswerKind(low=0, high=9)) for i in range(3)]
CALM_S = 1e6  # a budget that presses nobody


def begin(config: dict[str, Any]) -> list[TraceEvent]:
    return [TraceEvent("run_started", 0.0, {"config": config, "problems": list(map(encode_problem, PROBLEMS))})]


def resumed(events: Sequence[TraceEvent], config: dict[str, Any]) -> list[TraceEvent]:
    return [*events, TraceEvent("run_resumed", fold_run(events).elapsed_s, {"config": config}, wall_time=2e9)]


def as_stored(events: Sequence[TraceEvent]) -> list[TraceEvent]:
    return [replace(event, data=json.loads(json.dumps(event.data))) for event in events]


def live(
    asked: PolicySettings,
    *,
    seed: int = 0,
    trouble: float = 0.0,
    slowness_s: float = 0.3,
    max_in_flight: int = 8,
    budget_s: float = CALM_S,
    before: Sequence[TraceEvent] = (),
    stop_after: int | None = None,
    token_budget: int | None = None,
    tokens_per_s: float | None = None,
) -> list[TraceEvent]:
    """The trace of a run as the store keeps it; `stop_after` attempts a person ends it."""
    config = asdict(asked) | {
        "max_in_flight": max_in_flight, "token_budget": token_budget, "tokens_per_s": tokens_per_s,
    }  # fmt: skip
    script, behaviour = scripted(seed, trouble, slowness_s)
    driving = driving_of(config)

    def watch(driver: Driver, progress: RunProgress) -> None:
        if stop_after is not None and sum(row.num_finished for row in progress.problems) >= stop_after:
            driver.request_stop()

    session: Session = drive(
        script, problems=PROBLEMS, behaviour=behaviour, policy=make_policy(asked), attempts=asked.attempts,
        max_in_flight=max_in_flight, budget_s=budget_s, config=AttemptConfig(MAX_TOKENS, max_programs=2),
        before=resumed(before, config) if before else begin(config), on_step=watch, token_budget=token_budget,
        tokens_per_s=tokens_per_s, stretch=driving.stretch, weigh=weigher_of(asked.policy),
    )  # fmt: skip
    return as_stored(session.events)


def assert_faithful(events: Sequence[TraceEvent]) -> None:
    again, held = redecide(events), replay_timeline(events)
    assert again.is_faithful, "\n".join(again.lines())
    assert held.is_faithful, "\n".join(held.lines())
    assert again.num_problems == len(PROBLEMS) and again.num_stops >= len(PROBLEMS)
    assert held.num_problems >= len(PROBLEMS)
    assert again.num_launches or not any(event.kind == "attempt_started" for event in events)


TRIAD = PolicySettings(
    "triad", 6, "triad", "settled", ("code", "reasoning"), checks=("sympy_check", "enumeration_check"), second_round=2
)  # fmt: skip


@pytest.mark.parametrize("max_in_flight", [32, 3])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "asked",
    [
        PolicySettings("fixed", 6),
        PolicySettings("vote", 8, stop="four_equal"),
        TRIAD,
        PolicySettings("prometheus"),
        PolicySettings("pipeline", 6, scorer="mean_logprob"),
    ],
    ids=lambda asked: asked.policy,
)
def test_a_live_run_recorded_and_replayed_is_selected_and_stopped_alike(
    asked: PolicySettings, seed: int, max_in_flight: int
) -> None:
    assert_faithful(live(asked, seed=seed, trouble=0.2 * (seed % 2), max_in_flight=max_in_flight))


def test_the_runs_replayed_have_something_of_everything() -> None:
    traces = [live(TRIAD, seed=seed, trouble=0.2) for seed in range(4)]
    attempts = [a for trace in traces for item in fold_run(trace).problems.values() for a in item.attempts]
    assert {a.pillar for a in attempts} >= {"code", "reasoning", "sympy_check", "enumeration_check"}
    assert {a.round for a in attempts} == {1, 2} and any(a.evidence for a in attempts)
    assert {a.failure for a in attempts} >= {None, "stopped", "generator_error"}


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    trouble=st.sampled_from([0.0, 0.2, 1.0]),
    slowness_s=st.sampled_from([0.0, 0.3, 10.0]),
    policy=st.sampled_from(["fixed", "vote", "triad", "pipeline", "prometheus"]),
    selector=st.sampled_from([*SELECTORS]),
    stop=st.sampled_from([*STOP_RULES]),
    attempts=st.integers(1, 6),
    max_in_flight=st.integers(1, 20),
    checks=st.lists(st.sampled_from(CHECKS), max_size=3, unique=True),
    second_round=st.integers(0, 2),
    stop_after=st.one_of(st.none(), st.integers(0, 12)),
    cut=st.floats(0, 1),
)
def test_runs_that_broke_off_are_replayed_session_by_session(
    seed: int, trouble: float, slowness_s: float, policy: Any, selector: str, stop: str, attempts: int,
    max_in_flight: int, checks: list[str], second_round: int, stop_after: int | None, cut: float,
) -> None:  # fmt: skip
    more = {"checks": tuple(checks), "second_round": second_round} if policy == "triad" else {}
    asked = PolicySettings(policy, attempts, selector, stop, ("code", "reasoning"), **more)
    options: Any = {"seed": seed, "trouble": trouble, "slowness_s": slowness_s, "max_in_flight": max_in_flight}
    first = live(asked, stop_after=stop_after, **options)
    assert_faithful(first)
    prefix = first[: 1 + round(cut * (len(first) - 1))]
    assert_faithful(live(asked, before=prefix, **options))


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    policy=st.sampled_from(["fixed", "vote", "triad"]),
    budget_s=st.sampled_from([0.0, 0.5, 5.0, 60.0]),
    slowness_s=st.sampled_from([0.3, 10.0]),
    token_budget=st.sampled_from([None, 20, 100]),
    tokens_per_s=st.sampled_from([None, 2.0, 500.0]),
    max_in_flight=st.integers(1, 9),
)
def test_under_pressure_of_the_clock_every_decision_is_made_again(
    seed: int, policy: Any, budget_s: float, slowness_s: float, token_budget: int | None, tokens_per_s: float | None,
    max_in_flight: int,
) -> None:  # fmt: skip
    asked = replace(TRIAD, policy=policy) if policy == "triad" else PolicySettings(policy, 6)
    events = live(
        asked, seed=seed, budget_s=budget_s, slowness_s=slowness_s, max_in_flight=max_in_flight,
        token_budget=token_budget if policy == "triad" else None, tokens_per_s=tokens_per_s,
    )  # fmt: skip
    again = redecide(events)
    assert again.is_faithful, "\n".join(again.lines())
    assert again.num_problems == len(PROBLEMS)


# --- what is not as it was is found ---


def test_another_policy_differs_where_it_decides_otherwise() -> None:
    events = live(PolicySettings("fixed", 6))
    other = redecide(events, make_policy(PolicySettings("fixed", 4)))
    assert not other.is_faithful
    first = other.mismatches[0]
    assert (first.problem_id, first.recorded, first.again) == (
        "p0",
        "launch 6 code of round 1 at 0.8",
        "launch 4 code of round 1 at 0.8",
    )
    assert "not as recorded" in other.lines()[0] and "problem 'p0' at" in other.lines()[1]
    assert other.as_dict()["is_faithful"] is False


def changed(events: Sequence[TraceEvent], kind: str, **data: Any) -> list[TraceEvent]:
    """The trace with the first event of a kind changed."""
    place = next(i for i, event in enumerate(events) if event.kind == kind)
    return [replace(e, data={**e.data, **data}) if i == place else e for i, e in enumerate(events)]


def test_a_selection_or_stop_that_was_changed_is_named() -> None:
    events = live(PolicySettings("vote", 4))
    finished = next(event for event in events if event.kind == "problem_finished")
    selection = {**finished.data["selection"], "answer": "99"}
    for found in (
        redecide(changed(events, "problem_finished", selection=selection)).mismatches[0],
        replay_timeline(changed(events, "problem_finished", selection=selection)).differences[0],
    ):
        assert found.problem_id == finished.problem_id and "99" in found.recorded
        assert finished.data["selection"]["answer"] in str(found)
    (found,) = replay_timeline(changed(events, "problem_finished", reason="it was late")).differences
    assert "it was late" in found.recorded and str(found).startswith(f"problem {finished.problem_id!r}, session 1:")


def test_an_attempt_that_was_changed_changes_what_is_decided() -> None:
    events = live(PolicySettings("fixed", 3), seed=1)
    ended = next(e for e in events if e.kind == "attempt_finished" and e.data["attempt"]["answer"] is not None)
    index = events.index(ended)
    forged = [*events]
    forged[index] = replace(ended, data={"attempt": {**ended.data["attempt"], "answer": "8"}})
    assert not redecide(forged).is_faithful and not replay_timeline(forged).is_faithful


def test_a_trace_that_lost_an_attempt_is_told_apart() -> None:
    events = live(PolicySettings("fixed", 3))
    lost = [event for event in events if event.attempt_id != "p1#0"]
    first = redecide(lost).mismatches[0]
    assert first.problem_id == "p1" and first.again == "0 attempts ended and 2 in flight in the trace"


def test_runs_recorded_before_say_that_they_lack_it() -> None:
    old = [
        replace(event, data={k: v for k, v in event.data.items() if k != "seen"})
        for event in live(PolicySettings("fixed", 2))
        if event.data.get("action") != "wait"
    ]
    for again in (redecide, replay_timeline):
        with pytest.raises(InputError, match="recorded by a version whose decisions do not tell what the policy saw"):
            again(old)


@pytest.mark.parametrize("again", [redecide, replay_timeline])
def test_what_is_no_run_is_refused(again: Any) -> None:
    events = live(PolicySettings("fixed", 1))
    with pytest.raises(InputError, match="has no beginning"):
        again([event for event in events if event.kind != "run_started"])
    with pytest.raises(InputError, match="policy"):
        again(changed(events, "run_started", config={"policy": "oracle"}))
