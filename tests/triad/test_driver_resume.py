"""A run that was cut off anywhere goes on: nothing finished is lost or made twice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from scripted_run import Outcome, Session, drive, printed, started

from mathlete.cic.majority import Majority
from mathlete.contest.stop_rules import make_stop_rule
from mathlete.core.attempt import CUT_OFF
from mathlete.core.generation import GenerateRequest
from mathlete.core.problem import Problem
from mathlete.core.record import fold_run
from mathlete.core.trace import TraceEvent
from mathlete.generators.scripted import Reply
from mathlete.triad.driver import Driver, is_cut_short
from mathlete.triad.integration import TriadConfig, TriadPolicy
from mathlete.triad.progress import RunProgress

PROBLEMS = [Problem("p", "How many?"), Problem("q", "How much?"), Problem("r", "How long?")]
ATTEMPTS = 3
PROGRAM = "Let me compute it.\n```python\nprint(6 * 7)\n```\n"


def script(request: GenerateRequest) -> Reply:
    """Attempts of two turns; some answer, one is lost, some take long."""
    problem_id, rest = request.request_id.split("#")
    index, turn = (int(part) for part in rest.split("/"))
    if (problem_id, index) == ("q", 1):
        return Reply.failing("lost")
    text = PROGRAM if turn == 0 else rf"So it is $\boxed{{{40 + index % 3}}}$."
    return Reply.saying(text, delay_s=0.2 * index, token_s=0.05)


def behaviour(code: str) -> Outcome:
    return printed("42", after_s=0.1)


def run(before: Sequence[TraceEvent] = (), **options: float | Sequence[TraceEvent]) -> Session:
    settings = {"problems": PROBLEMS, "attempts": ATTEMPTS, "max_in_flight": 4, "behaviour": behaviour, **options}
    return drive(script, before=before, **settings)  # type: ignore[arg-type]


def resumed(trace: Sequence[TraceEvent]) -> list[TraceEvent]:
    at_s = fold_run(trace).elapsed_s
    return [*trace, TraceEvent("run_resumed", at_s, {"config": {}}, wall_time=2e9)]


def answers(session: Session) -> dict[str, list[tuple[str, str | None]]]:
    return {key: sorted((a.id, a.answer) for a in item.attempts) for key, item in session.record.problems.items()}


WHOLE = run()


def test_the_whole_run_has_something_of_everything() -> None:
    assert {"turn_finished", "attempt_finished", "problem_finished", "warning"} <= set(WHOLE.kinds())
    assert WHOLE.outcome.reason == "complete"
    assert len(WHOLE.events) > 50


@pytest.mark.parametrize("length", range(1, len(WHOLE.events) + 1))
def test_a_run_killed_after_any_event_loses_no_finished_attempt(length: int) -> None:
    prefix = WHOLE.events[:length]
    after = run(before=resumed(prefix))
    for key, before in fold_run(prefix).problems.items():
        kept = after.record.problems[key].attempts
        assert kept[: len(before.attempts)] == before.attempts
        if before.selection is not None:
            assert not [event for event in after.new_events if event.problem_id == key], "what is settled stays so"
    assert after.outcome.reason == "complete"
    assert answers(after) == answers(WHOLE), "and it comes to what it would have come to"


def stop_after(num: int) -> object:
    def stop(driver: Driver, progress: RunProgress) -> None:
        if sum(row.num_finished for row in progress.problems) >= num:
            driver.request_stop()

    return stop


@pytest.mark.parametrize("num", [0, 1, 4, 7])
def test_an_interrupted_run_goes_on_with_what_was_left(num: int) -> None:
    first = run(on_step=stop_after(num))
    assert first.outcome.reason == "interrupted"
    left = {key for key, item in first.record.problems.items() if is_cut_short(item)}
    assert left
    second = run(before=resumed(first.events))
    assert second.outcome.reason == "complete"
    assert {event.problem_id for event in second.new_events if event.kind == "problem_opened"} == left
    for item in second.record.problems.values():
        real = [a for a in item.attempts if a.answer is not None or a.failure not in {*CUT_OFF, "generator_error"}]
        assert len(real) == ATTEMPTS, "each that was cut off without an answer is made again"
        assert len({attempt.id for attempt in item.attempts}) == len(item.attempts)
        assert not is_cut_short(item)


def test_a_run_that_was_out_of_time_goes_on_when_it_is_given_more() -> None:
    first = run(budget_s=1.2)
    assert first.outcome.reason == "budget"
    second = run(before=resumed(first.events))
    assert second.outcome.reason == "complete"
    assert {item.stop_reason for item in second.record.problems.values()} == {"all attempts finished"}


def test_without_more_time_the_answers_stay_and_nothing_is_launched() -> None:
    first = run(budget_s=1.2)
    again = run(before=resumed(first.events), budget_s=0.0)
    assert again.kinds().keys() <= {"problem_finished"}
    for key, item in again.record.problems.items():
        assert item.selection is not None and first.record.problems[key].selection is not None
        assert item.selection.answer == first.record.problems[key].selection.answer  # type: ignore[union-attr]


def test_interrupted_again_and_again_it_still_arrives() -> None:
    trace, sessions = [started(PROBLEMS)], 0
    while True:
        sessions += 1
        done = sum(len(item.attempts) for item in fold_run(trace).problems.values())

        def stop(driver: Driver, progress: RunProgress, done: int = done) -> None:
            if sum(row.num_finished for row in progress.problems) and progress.generating_s > 2.5:
                driver.request_stop()

        session = run(before=resumed(trace), on_step=stop)
        trace = session.events
        if session.outcome.reason == "complete":
            break
        assert sum(len(item.attempts) for item in session.record.problems.values()) > done
        assert sessions < 20
    assert sessions > 1
    assert not any(map(is_cut_short, fold_run(trace).problems.values()))


def test_what_the_clock_affords_comes_on_top_of_what_is_there_and_checks_are_no_attempts() -> None:
    def script(request: GenerateRequest) -> Reply:
        if request.continuation:
            return Reply.saying("    return 7\n```\n")
        return Reply.saying(rf"So it is $\boxed{{{request.request_id[2]}}}$.", token_s=1.0)

    def checked(attempts: int, budget_s: float, before: Sequence[TraceEvent] = ()) -> Session:
        config = TriadConfig(attempts, checks=("sympy_check", "enumeration_check"), weighs_worth=False)
        policy = TriadPolicy(Majority(), make_stop_rule("never"), config)
        return drive(
            script, policy=policy, attempts=attempts, budget_s=budget_s, before=before, tokens_per_s=100.0,
            problems=PROBLEMS[:1],
        )  # fmt: skip

    first = checked(attempts=2, budget_s=100.0)
    assert [attempt.is_check for attempt in first.attempts()] == [False, False, True, True]
    num_kept = max(i for i, event in enumerate(first.events) if event.kind == "attempt_finished") + 1
    again = checked(attempts=8, budget_s=6.0, before=resumed(first.events[:num_kept]))
    (opened,) = [event.data["affordable"] for event in again.new_events if event.kind == "problem_opened"]
    assert opened == 3, "six seconds at 100 tokens/s are one more attempt"
    assert sum(not attempt.is_check for attempt in again.attempts()) > 2
