"""Faults: what is planned, and what comes of a rehearsal; pure, but for processes that are looked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_contest import contest, write_csv

from mathlete.core.errors import InputError
from mathlete.core.problem import Problem
from mathlete.core.record import Moment, ProblemRecord, RunRecord
from mathlete.core.selection import Selection
from mathlete.kaggle.contest_clock import ContestClock, num_upcoming, patience_s
from mathlete.kaggle.contest_table import ContestTable
from mathlete.kaggle.engine_guards import in_own_processes
from mathlete.kaggle.faults import (
    DoneFault,
    FaultInjector,
    PlannedFault,
    parse_faults,
    plan_faults,
    tell_faults,
)
from mathlete.kaggle.gateway import Call, GatewayRun
from mathlete.kaggle.processes import catches, descendants
from mathlete.kaggle.rehearsal import Rehearsal, Rehearsed, RehearsedRun, what_was_lost
from mathlete.kaggle.rehearsal_report import render_rehearsal
from mathlete.kaggle.rehearsal_session import clock_words
from mathlete.kaggle.rehearsal_times import times_of
from mathlete.run_config import EngineSpec, RunConfig

ALL = "generator_killed,sandbox_killed:10,slow_gateway,slow_start,late_answer,exception,entrant_killed"


def test_faults_are_read() -> None:
    assert parse_faults("") == {}
    assert parse_faults(" generator_killed, sandbox_killed:10 ") == {"generator_killed": 1, "sandbox_killed": 10}
    assert parse_faults("slow_gateway") == {"slow_gateway": 3}


@pytest.mark.parametrize("text", ["fire", "sandbox_killed:0", "sandbox_killed:x", "sandbox_killed:", "exception:9999"])
def test_faults_that_there_are_not(text: str) -> None:
    if text.endswith(":"):
        assert parse_faults(text) == {"sandbox_killed": 1}
        return
    with pytest.raises(InputError, match="is no fault|write a number"):
        parse_faults(text)


@pytest.mark.parametrize("num_calls", [1, 2, 3, 10, 50])
def test_a_plan_holds_what_is_wanted(num_calls: int) -> None:
    wanted = parse_faults(ALL)
    for seed in range(20):
        planned = plan_faults(wanted, seed, num_calls, 1200.0)
        assert {kind: sum(item.kind == kind for item in planned) for kind in wanted} == wanted
        assert all(0 <= item.call < num_calls and item.after_s < 1200 / num_calls for item in planned)
        assert planned == plan_faults(wanted, seed, num_calls, 1200.0)
    assert plan_faults(wanted, 1, 10, 1200.0) != plan_faults(wanted, 2, 10, 1200.0)
    kills = [item.call for item in plan_faults({"sandbox_killed": 10}, 0, 10, 1200.0)]
    assert kills == [0, 0, 1, 2, 3, 4, 4, 5, 6, 7], "no problem meets all of them"


def test_the_gateway_is_made_slow_and_impatient() -> None:
    planned = [PlannedFault("slow_gateway", 1, length_s=0.2), PlannedFault("late_answer", 2, length_s=0.7)]
    injector = FaultInjector(planned, lambda: None, lambda: None)
    start_s = time.monotonic()
    assert [injector.before_call(0), injector.before_call(1)] == [None, None]
    assert time.monotonic() - start_s >= 0.2
    assert injector.before_call(2) == 0.7
    assert injector.close() == ()
    assert tell_faults(injector.done) == "slow_gateway, late_answer"


def test_what_has_no_occasion_is_told() -> None:
    injector = FaultInjector([PlannedFault("generator_killed", 0)], os.getpid, lambda: None)
    injector.before_call(0)
    time.sleep(0.1)
    assert [item.kind for item in injector.close()] == ["generator_killed"]
    assert not injector.done


def test_processes_below_another_are_found() -> None:
    sleep = "import time; time.sleep(30)"
    nested = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{sleep}']); {sleep}"
    child = subprocess.Popen([sys.executable, "-c", nested])
    try:
        give_up_s = time.monotonic() + 20
        while len(found := [e for e in descendants(os.getpid()) if "time.sleep(30)" in e.command]) < 2:
            assert time.monotonic() < give_up_s
            time.sleep(0.02)
        assert found[0].pid == child.pid and found[1].parent == child.pid
        os.kill(found[1].pid, 9)
    finally:
        child.kill()
        child.wait()


def test_a_process_that_would_die_of_a_signal_is_told_apart() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    try:
        assert not catches(os.getpid(), signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, lambda number, frame: None)
        assert catches(os.getpid(), signal.SIGUSR1) and not catches(2**22 + 1, signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_each_engine_gets_a_process_of_its_own() -> None:
    plain = RunConfig("contest", None, "0.5b", 60.0)
    (engine,) = in_own_processes(plain).engines
    assert (engine.type, engine.model, engine.own_process) == ("ryanstream", "0.5b", True)
    server = EngineSpec(
        "far", "openai_server", "m", pillars=("reasoning",), settings={"base_url": "http://127.0.0.1:1"}
    )
    near = EngineSpec("near", "ryanstream", "0.5b")
    both = in_own_processes(replace(plain, engines=(near, server))).engines
    assert [engine.own_process for engine in both] == [True, False]


def test_the_clock_of_a_contest_goes_on_in_another_process() -> None:
    clock = ContestClock.begun_at(1_000.0, 60.0, clock=lambda: 5.0, wall_clock=lambda: 1_020.0)
    assert (clock.elapsed_s(), clock.remaining_s()) == (20.0, 40.0)
    set_back = ContestClock.begun_at(1_000.0, 60.0, at_least_s=30.0, clock=lambda: 5.0, wall_clock=lambda: 1.0)
    assert set_back.remaining_s() == 30.0
    assert ContestClock.begun_at(0.0, 60.0, clock=lambda: 5.0, wall_clock=lambda: 1e9).remaining_s() == 0.0


def test_problems_that_are_expected() -> None:
    assert [num_upcoming(50, seen) for seen in (1, 49, 50, 51, 99)] == [49, 1, 0, 0, 0]
    assert (patience_s(100.0, 3), patience_s(100.0, 0)) == (50.0, 100.0)


def answered(key: str, answer: str, **times: object) -> ProblemRecord:
    moments = (
        Moment(2.0, "problem_opened", None, {"budget_s": 20.0}),
        Moment(2.5, "attempt_started", f"{key}#0"),
        Moment(3.0, "attempt_started", f"{key}#1"),
        Moment(6.0, "attempt_finished", f"{key}#0"),
    )
    selection = Selection(answer, "majority", 0.5)
    return ProblemRecord(Problem(key, "What?"), selection=selection, stop_reason="settled", moments=moments)


RECORD = RunRecord({}, {"a": answered("a", "7"), "<b>": answered("<b>", "8")}, started_wall_time=1_001.0)
CALLS = (Call("a", 1.0, 8.0, 7), Call("<b>", 9.0, 30.0, 8, num_asked=2))
RUN = RehearsedRun(
    number=1, run_id="x-1", seed=0, started_wall_time=1_000.0, elapsed_s=31.0, is_in_time=True, calls=CALLS,
    faults=(DoneFault("entrant_killed", 1_005.0, 0, "<i>process 7</i>"),),
    not_done=(PlannedFault("exception", 1),), right=("a",), warnings=("<script>alert(1)</script>",),
)  # fmt: skip


def test_where_the_time_went() -> None:
    first, second = times_of(RUN, RECORD, {"a": "7", "<b>": "9"}, 2, 100.0)
    assert (first.seconds, first.share_s, first.is_right, second.is_right) == (7.0, 20.0, True, False)
    assert first.attempts == ((3.5, 7.0), (4.0, 8.0)), "on the gateway's clock; the second never ended"
    assert (first.banked_s, second.banked_s) == (100 - 8 - 50, 70.0)
    assert second.num_asked == 2


def test_the_page_of_a_rehearsal_escapes_what_is_foreign() -> None:
    rehearsed = Rehearsed("x", 100.0, 2, {"a": "7", "<b>": "9"}, (RUN, replace(RUN, number=2, right=("a", "<b>"))))
    assert rehearsed.two_run_score == 1.0, "from the answers: a is right in both, b in none"
    page = render_rehearsal(rehearsed, [times_of(run, RECORD, rehearsed.golds, 2, 100.0) for run in rehearsed.runs])
    assert "<b>" not in page and "&lt;b&gt;" in page and "<script>alert" not in page and "<i>process" not in page
    assert "the entrant&#x27;s server is killed, and started again" in page and "no occasion" in page
    assert "../x-1/report.html" in page
    assert "Nothing was lost." in page


def test_a_page_without_runs_or_labels() -> None:
    assert "0 problems" in render_rehearsal(Rehearsed("x", 10.0, 0, {}, ()), [])
    early = replace(RUN, calls=(), right=(), error="gone", losses=("a was answered 0 times",), num_restarts=2)
    page = render_rehearsal(Rehearsed("x", 10.0, 2, {}, (early,)), [()])
    assert "Ended early: gone" in page and "Lost: a was answered 0 times" in page


def test_what_is_lost_is_found(tmp_path: Path) -> None:
    table = ContestTable.read(write_csv(tmp_path / "c.csv", 2))
    record = RunRecord({}, {"p0": answered("p0", "0"), "p1": answered("p1", "11")})
    calls = [Call("p0", 0, 1, 0), Call("p1", 1, 2, 11)]
    assert what_was_lost(record, 0, table, GatewayRun(2, calls)) == []
    assert what_was_lost(record, 0, table, GatewayRun(2, calls[:1])) == ["p1 was answered 0 times"]
    assert what_was_lost(record, 3, table, GatewayRun(2, calls)) == ["3 of 3 finished attempts are not in the record"]
    other = GatewayRun(2, [calls[0], replace(calls[1], answer=5)])
    assert what_was_lost(record, 0, table, other) == ["p1: 5 was handed in, and 11 is recorded"]
    assert what_was_lost(RunRecord({}, {}), 0, table, GatewayRun(2, calls)) == [
        "p0: its answer is not recorded",
        "p1: its answer is not recorded",
    ]


def test_each_run_has_a_seed_and_a_name_of_its_own(tmp_path: Path) -> None:
    table = ContestTable.read(write_csv(tmp_path / "c.csv", 4))
    rehearsal = Rehearsal(contest(tmp_path), table, "x", clock_s=300.0)
    runs = [rehearsal.run_contest(number) for number in (1, 2)]
    assert [run.run_id for run in runs] == ["x-1", "x-2"]
    assert runs[0].config.seed != runs[1].config.seed
    assert {(run.num_problems, run.config.budget_s) for run in runs} == {(4, 290.0)}


@pytest.mark.parametrize(("seconds", "words"), [(0, "0:00"), (65.9, "1:05"), (3909, "1:05:09"), (-5, "-0:05")])
def test_clocks_in_words(seconds: float, words: str) -> None:
    assert clock_words(seconds) == words
