"""Recorded attempts on a simulated clock: the same decisions as live, and every fault there is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_run import ListSink, drive, started

from mathlete.contest.policy import FixedPolicy, VotePolicy
from mathlete.core.attempt import Attempt
from mathlete.core.generation import GenerateRequest
from mathlete.core.policy import Action, Launch, Policy, PoolState, Stop
from mathlete.core.problem import Problem
from mathlete.core.record import fold_run
from mathlete.core.trace import TraceEvent
from mathlete.generators.scripted import Reply
from mathlete.triad.driver import Driver, DriverConfig, RunOutcome
from mathlete.triad.playback import SimulatedClock
from mathlete.triad.recorded_source import Faults, RecordedConfig, RecordedSource, Speed

P, Q = Problem("p", "How many?"), Problem("q", "How much?")


def recorded(problem: Problem, *answers: str | None, tokens: int = 100, **fields: Any) -> list[Attempt]:
    made = []
    for i, answer in enumerate(answers):
        failure = None if answer else "no_answer"
        plain = Attempt(f"old{i}", problem.id, i, "code", i, 1.0, answer, None, (), tokens, 2.0, failure=failure)
        made.append(replace(plain, **fields))
    return made


def replay(
    pool: dict[str, Sequence[Attempt]],
    policy: Policy,
    *,
    problems: Sequence[Problem] = (P,),
    budget_s: float = 100.0,
    config: RecordedConfig | None = None,
    driver_config: DriverConfig | None = None,
) -> tuple[list[TraceEvent], RunOutcome, float]:
    """Events of the session, its outcome, and the seconds it took."""
    clock, sink = SimulatedClock(50.0), ListSink([started(problems)])
    driver: Driver
    driver = Driver(
        lambda trace: RecordedSource(trace, clock, pool, config or RecordedConfig(), lambda: driver.next_deadline_s()),
        sink,
        policy,
        driver_config or DriverConfig(attempts=4),
        clock=clock,
    )
    outcome = driver.run(problems, budget_s, {}, 0.0)
    return sink.events, outcome, clock() - 50.0


def decisions(events: Sequence[TraceEvent]) -> list[tuple[str, object, object]]:
    """What was done in which order: starts, ends and decisions to do something, times left out."""
    told = []
    for event in events:
        if event.kind in ("attempt_started", "problem_opened"):
            told.append((event.kind, event.problem_id, event.attempt_id))
        elif event.kind == "attempt_finished":
            data = event.data["attempt"]
            told.append((event.kind, event.attempt_id, (data["answer"], data["failure"])))
        elif event.kind == "decision" and event.data["action"] != "wait" and event.data.get("n") != 0:
            data = {name: value for name, value in event.data.items() if name not in ("temperature", "seen")}
            told.append((event.kind, event.problem_id, data))
        elif event.kind == "problem_finished":
            told.append((event.kind, event.data["reason"], event.data["selection"]["answer"]))
    return told


def scripted(request: GenerateRequest) -> Reply:
    """Attempts of different lengths and answers, some of them without any."""
    problem_id, index = request.request_id.split("/")[0].split("#")
    number = int(index) + (3 if problem_id == "q" else 0)
    said = "I give up." if number % 4 == 1 else rf"It is $\boxed{{{7 if number % 3 else number}}}$."
    return Reply.saying(said, delay_s=0.3 * ((number * 7) % 5), token_s=0.05 + 0.013 * number)


@pytest.mark.parametrize("policy", [FixedPolicy(6), VotePolicy(8), VotePolicy(5)])
@pytest.mark.parametrize("max_in_flight", [32, 3])
def test_a_live_run_replayed_is_decided_alike(policy: Policy, max_in_flight: int) -> None:
    whole = drive(scripted, problems=(P, Q), policy=FixedPolicy(16), attempts=16, max_in_flight=64)
    pool = {key: record.attempts for key, record in fold_run(whole.events).problems.items()}
    live = drive(scripted, problems=(P, Q), policy=policy, attempts=8, max_in_flight=max_in_flight)
    settings = DriverConfig(attempts=8, max_in_flight=max_in_flight)
    events, outcome, took_s = replay(pool, policy, problems=(P, Q), driver_config=settings)
    assert decisions(events) == decisions(live.events)
    assert outcome.reason == live.outcome.reason
    assert took_s == pytest.approx(live.took_s, abs=0.5)


def test_it_leaves_the_trace_of_a_run() -> None:
    events, outcome, took_s = replay({"p": recorded(P, "4", None, "4")}, FixedPolicy(3))
    record = fold_run(events).problems["p"]
    assert record.selection is not None and record.selection.answer == "4"
    assert [(a.id, a.index, a.answer, a.failure) for a in record.attempts] == [
        ("p#0", 0, "4", None),
        ("p#1", 1, None, "no_answer"),
        ("p#2", 2, "4", None),
    ]
    assert (outcome.reason, outcome.stats["num_tokens"], took_s) == ("complete", 300.0, pytest.approx(2.0, abs=0.06))


def test_each_attempt_is_given_out_once_and_then_refused() -> None:
    events, outcome, took_s = replay({"p": recorded(P, "4", "5")}, FixedPolicy(4))
    failures = [event.data["attempt"]["failure"] for event in events if event.kind == "attempt_finished"]
    assert failures.count(None) == 2 and set(failures) == {None, "generator_error"}
    warnings = [event.data["message"] for event in events if event.kind == "warning"]
    assert warnings == ["p#2: no attempt 'code' of round 1 is recorded"]
    assert outcome.stats["num_tokens"] == 200 and took_s == pytest.approx(2.0, abs=0.06)


class LaunchOnce:
    """Asks for one thing, and ends with whatever came."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch

    def decide(self, state: PoolState) -> Action:
        done = FixedPolicy(1, ("code",)).decide(replace(state, remaining_s=0.0))
        assert isinstance(done, Stop)
        return done if state.num_launched else self._launch


@pytest.mark.parametrize(
    ("launch", "is_served"),
    [
        (Launch(1, "sympy_check", 0.5, about=("4", "5")), True),
        (Launch(1, "sympy_check", 0.5, about=("5", "4")), False),
        (Launch(1, "lean_check", 0.5, about=("4", "5")), False),
        (Launch(1, "code", 0.5, about=("4",), round=2), True),
        (Launch(1, "code", 0.5, about=("4",), round=3), False),
        (Launch(1, "reasoning", 0.5), False),
    ],
)
def test_checks_and_second_rounds_are_served_only_when_they_were_recorded(launch: Launch, is_served: bool) -> None:
    check = recorded(P, None, pillar="sympy_check", about=("4", "5"), failure=None)
    second = recorded(P, "4", round=2, about=("4",))
    clock, sink = SimulatedClock(), ListSink([started([P])])
    source: list[RecordedSource] = []

    def make(trace: Any) -> RecordedSource:
        source.append(RecordedSource(trace, clock, {"p": [*check, *second]}, RecordedConfig()))
        return source[0]

    Driver(make, sink, LaunchOnce(launch), DriverConfig(), clock=clock).run([P], 10.0, {}, 0.0)
    assert any(event.kind == "warning" for event in sink.events) != is_served
    (ended,) = [event.data["attempt"] for event in sink.events if event.kind == "attempt_finished"]
    assert ended["failure"] == ("stopped" if is_served else "generator_error")
    assert (ended["pillar"], ended["round"], ended["about"]) == (launch.pillar, launch.round, launch.about)


def test_speed_depends_on_how_many_run() -> None:
    speed = Speed(alone=10.0, half_at=1.0)
    assert [speed.each(n) for n in (1, 2, 4)] == [10.0, 5.0, 2.5]
    settings = RecordedConfig(speed, max_step_s=1000.0)
    pool = {"p": [*recorded(P, "1"), *recorded(P, "1", tokens=300, index=1)]}
    _, _, took_s = replay(pool, FixedPolicy(2), config=settings)
    assert took_s == pytest.approx(100 / 5 + 200 / 10, abs=0.06), "two at five a second, then one at ten"


def test_orders_are_drawn_from_the_seed() -> None:
    pool = {"p": recorded(P, *map(str, range(12)))}

    def order(seed: int | None) -> list[str]:
        events, _, _ = replay(pool, FixedPolicy(12), config=RecordedConfig(order_seed=seed))
        return [e.data["attempt"]["answer"] for e in events if e.kind == "attempt_finished"]

    assert order(None) == list(map(str, range(12)))
    assert order(1) == order(1) != order(2) and sorted(order(1)) == sorted(order(None))


def test_nothing_happens_in_a_stall() -> None:
    stalled = RecordedConfig(faults=Faults(stalls=((1.0, 31.0),)), max_step_s=7.0)
    _, outcome, took_s = replay({"p": recorded(P, "4")}, FixedPolicy(1), config=stalled)
    assert (outcome.reason, took_s) == ("complete", pytest.approx(32.0, abs=0.06))


@pytest.mark.parametrize("dead_from_s", [0.0, 1.5])
def test_after_a_generator_has_died_problems_end_at_their_deadlines(dead_from_s: float) -> None:
    dead = RecordedConfig(faults=Faults(dead_from_s=dead_from_s), max_step_s=1000.0)
    pool = {"p": recorded(P, "4", "4", tokens=1000), "q": recorded(Q, "4", "4", tokens=1000)}
    events, outcome, took_s = replay(pool, FixedPolicy(2), problems=(P, Q), config=dead)
    assert took_s == 100.0 and outcome.reason == "budget"
    record = fold_run(events)
    assert all(problem.selection is not None for problem in record.problems.values())
    cut = [a for problem in record.problems.values() for a in problem.attempts if a.failure == "out_of_time"]
    assert cut and all(a.answer is None and not a.turns for a in cut)
    assert max(a.num_tokens for a in cut) == 500 * dead_from_s


def test_a_step_that_returns_late_is_the_only_thing_that_is_late() -> None:
    late = RecordedConfig(faults=Faults(dead_from_s=0.0, late_step_s=3.0), max_step_s=1000.0)
    _, _, took_s = replay({"p": recorded(P, "4")}, FixedPolicy(1), config=late)
    assert took_s == 103.0


STALLS = st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 20)), max_size=4)


@given(STALLS, st.floats(0, 100), st.floats(0, 50), st.floats(0, 50))
def test_work_and_time_are_inverse(spans: list[tuple[float, float]], dead: float, begin: float, work: float) -> None:
    at, stalls = 0.0, []
    for pause, length in spans:
        stalls.append((at + pause, at + pause + length))
        at = stalls[-1][1]
    faults = Faults(tuple(stalls), dead)
    done = faults.when_done_s(begin, work)
    assert done >= begin + work
    if done < math.inf:
        assert faults.working_s(begin, done) == pytest.approx(work, abs=1e-9)
    else:
        assert faults.working_s(begin, 1e9) <= work + 1e-9


@pytest.mark.parametrize(
    "make", [lambda: Speed(0.0), lambda: RecordedConfig(max_step_s=0.0), lambda: SimulatedClock().advance(-1.0)]
)
def test_nonsense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="must be|backwards"):
        make()


def test_problems_may_be_kept_strictly_in_turn() -> None:
    pool = {"p": recorded(P, "4", "4"), "q": recorded(Q, "4", "4")}
    for max_open, overlaps in ((1, False), (None, True)):
        settings = DriverConfig(attempts=2, max_in_flight=8, max_open=max_open)
        events, _, _ = replay(pool, FixedPolicy(2), problems=(P, Q), driver_config=settings)
        order = [event.kind for event in events if event.kind in ("problem_opened", "problem_finished")]
        assert (order[:2] == ["problem_opened"] * 2) == overlaps


@pytest.mark.parametrize(("stretch", "first_s"), [(1.0, 50.0), (1.5, 75.0), (4.0, 75.0)])
def test_a_problem_may_take_more_than_its_share_but_not_the_minimum_of_others(stretch: float, first_s: float) -> None:
    dead = RecordedConfig(faults=Faults(dead_from_s=0.0), max_step_s=1000.0)
    pool = {"p": recorded(P, "4"), "q": recorded(Q, "4")}
    settings = DriverConfig(attempts=1, max_in_flight=1, max_open=1, stretch=stretch)
    events, _, took_s = replay(pool, FixedPolicy(1), problems=(P, Q), config=dead, driver_config=settings)
    record = fold_run(events).problems["p"]
    assert record.finished_at_s is not None and record.opened_at_s is not None
    assert record.finished_at_s - record.opened_at_s == pytest.approx(first_s) and took_s == 100.0
