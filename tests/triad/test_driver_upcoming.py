"""Problems that come strictly in turn: those that nobody has seen yet have their part of the clock."""

from __future__ import annotations

import pytest
from scripted_run import drive, started

from mathlete.core.decision import decode_seen
from mathlete.core.problem import Problem
from mathlete.core.record import fold_run
from mathlete.core.trace import TraceEvent, encode_problem
from mathlete.generators.scripted import Reply
from mathlete.lab.redecide import redecide
from mathlete.lab.timeline_replay import replay_timeline

P, Q = Problem("p", "How many?"), Problem("q", "How much?")


def slow(seconds: float) -> Reply:
    return Reply.saying(r"It is $\boxed{42}$.", delay_s=seconds)


def opened(run: object) -> dict[str, float]:
    return {e.problem_id: e.data["budget_s"] for e in run.new_events if e.kind == "problem_opened"}  # type: ignore[attr-defined]


def test_a_problem_gets_its_part_of_what_all_that_are_to_come_share() -> None:
    run = drive(lambda request: slow(0), attempts=1, budget_s=100, num_upcoming=9)
    assert opened(run) == {"p": pytest.approx(10, abs=0.1)}
    last = drive(lambda request: slow(0), attempts=1, budget_s=100)
    assert opened(last) == {"p": pytest.approx(100, abs=0.1)}


def test_slots_that_are_free_do_not_make_the_share_larger() -> None:
    run = drive(lambda request: slow(0), attempts=1, max_in_flight=64, budget_s=100, num_upcoming=4)
    assert opened(run) == {"p": pytest.approx(20, abs=0.1)}


def test_it_ends_at_its_share_although_nobody_waits_in_this_session() -> None:
    run = drive(lambda request: slow(1_000), attempts=2, budget_s=100, num_upcoming=3)
    assert run.took_s == pytest.approx(25, abs=0.5)
    assert run.record.problems["p"].stop_reason == "out of time"


def test_what_is_stretched_leaves_those_to_come_half_of_an_even_share() -> None:
    run = drive(lambda request: slow(1_000), attempts=2, budget_s=100, num_upcoming=3, stretch=9.0)
    assert run.took_s == pytest.approx(100 - 3 * 12.5, abs=0.5)


def test_half_of_an_even_share_of_the_whole_contest_is_kept_to_the_end() -> None:
    """Not of what is left, of which problems that take all they may would leave less and less."""
    events, left_s, took = [started([])], 100.0, []
    for number, name in enumerate("pqrs"):
        problem = Problem(name, "How many?")
        came = {"problems": [encode_problem(problem)], "num_upcoming": 3 - number}
        events = [*events, TraceEvent("run_resumed", fold_run(events).elapsed_s, came)]
        run = drive(lambda request: slow(1_000), problems=[problem], attempts=2, before=events, budget_s=left_s,
                    num_upcoming=3 - number, stretch=9.0)  # fmt: skip
        events, left_s = run.events, left_s - run.took_s
        took.append(run.took_s)
    assert took == [pytest.approx(seconds, abs=0.5) for seconds in (62.5, 12.5, 12.5, 12.5)]


def test_a_heavy_problem_is_weighed_against_average_ones() -> None:
    run = drive(lambda request: slow(0), attempts=1, budget_s=100, num_upcoming=8, weigh=lambda problem: 2.0)
    assert opened(run) == {"p": pytest.approx(20, abs=0.1)}


def test_attempts_are_rationed_for_those_to_come() -> None:
    run = drive(lambda request: slow(0), attempts=8, budget_s=1_000, num_upcoming=9, tokens_per_s=20.0)
    (event,) = [event for event in run.new_events if event.kind == "problem_opened"]
    assert event.data["affordable"] == 3  # 0.8 * 1000 s * 20 tokens/s over 10 problems and 450 tokens an attempt


def test_a_policy_sees_them_wait_and_cannot_have_them_opened() -> None:
    run = drive(lambda request: slow(0), attempts=1, budget_s=100, num_upcoming=9)
    seen = [decode_seen(event.data) for event in run.new_events if event.kind == "decision"]
    outlooks = [state.outlook for state in seen if state is not None and state.outlook is not None]
    assert {(outlook.num_waiting, outlook.may_open) for outlook in outlooks} == {(9, False)}


def test_the_time_that_is_left_goes_to_those_to_come() -> None:
    budget_s, shares = 100.0, []
    for number, takes_s in enumerate((0.0, 0.0, 1_000.0, 1_000.0)):
        run = drive(lambda request, takes_s=takes_s: slow(takes_s), attempts=1, budget_s=budget_s,
                    num_upcoming=3 - number)  # fmt: skip
        shares.append(opened(run)["p"])
        budget_s -= run.took_s
    assert shares == [pytest.approx(share, abs=0.5) for share in (25, 33.3, 50, 50)]
    assert budget_s == pytest.approx(0, abs=0.5)


def test_lengths_of_earlier_problems_are_remembered() -> None:
    """A session of its own for each problem must not forget how long attempts are."""
    first = drive(lambda request: Reply.saying("word " * 400 + r"$\boxed{1}$."), problems=[P], attempts=4, budget_s=100,
                  num_upcoming=1)  # fmt: skip
    came = TraceEvent("run_resumed", first.record.elapsed_s, {"problems": [encode_problem(Q)], "num_upcoming": 0})
    again = drive(lambda request: slow(0), problems=[Q], attempts=4, before=[*first.events, came], budget_s=50)
    outlooks = [decode_seen(event.data) for event in again.new_events if event.kind == "decision"]
    assert outlooks[0] is not None and outlooks[0].outlook is not None
    assert outlooks[0].outlook.tokens_per_attempt == pytest.approx((4 * 450 + 4 * 402) / 8, rel=0.02)


def in_turn() -> list[TraceEvent]:
    """A contest of two problems, of which the second comes when the first has ended."""
    start = started([])
    told = {"policy": "fixed", "attempts": 3, "selector": "majority", "command": "contest"}
    events = [TraceEvent("run_started", 0.0, {**start.data, "config": told})]
    for number, problem in enumerate((P, Q)):
        at_s = fold_run(events).elapsed_s + 5.0  # the gateway took its time
        told_s = {"problems": [encode_problem(problem)], "num_upcoming": 1 - number, "config": {}}
        events.append(TraceEvent("run_resumed", at_s, told_s))
        run = drive(lambda request: slow(1.0), problems=[problem], attempts=3, before=events, budget_s=60.0 - at_s,
                    num_upcoming=1 - number)  # fmt: skip
        events = run.events
    return [*events, TraceEvent("run_finished", fold_run(events).elapsed_s, {"reason": "complete"})]


def test_problems_that_come_later_are_part_of_the_record() -> None:
    record = fold_run(in_turn())
    assert list(record.problems) == ["p", "q"]
    assert [item.selection and item.selection.answer for item in record.problems.values()] == ["42", "42"]


def test_a_problem_announced_again_keeps_what_was_done() -> None:
    events = in_turn()
    again = TraceEvent("run_resumed", 60.0, {"problems": [encode_problem(P)], "num_upcoming": 0})
    assert len(fold_run([*events, again]).problems["p"].attempts) == 3


def test_such_a_run_is_decided_again_and_held_again() -> None:
    events = in_turn()
    assert redecide(events).mismatches == ()
    replayed = replay_timeline(events)
    assert replayed.num_problems == 2
    assert replayed.is_faithful, replayed.lines()
