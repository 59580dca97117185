"""The driver's loop: what is launched, what is kept, and how problems end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scripted_run import FakeClock, FakeRunner, ListSink, WatchedGenerator, crashed, drive, printed, started

from mathlete.contest.policy import FixedPolicy
from mathlete.core.code import CodeLimits
from mathlete.core.errors import EngineError, StorageError
from mathlete.core.generation import GenerateRequest
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.seeds import derive_seed
from mathlete.core.trace import TraceEvent
from mathlete.generators.scripted import Reply, Script, replies_in_order
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.driver import Driver, DriverConfig
from mathlete.triad.in_flight import live_source
from mathlete.triad.making import AttemptMaker
from mathlete.triad.progress import RunProgress

P, Q, R = Problem("p", "How many?"), Problem("q", "How much?"), Problem("r", "How long?")
PROGRAM = "Let me compute it.\n```python\nprint(6 * 7)\n```\n"
BOXED_42 = r"So the answer is $\boxed{42}$."


def saying(text: str, **times: float) -> Script:
    return lambda request: Reply.saying(text, **times)


def by_attempt(replies: dict[int, Reply | str]) -> Script:
    """Each attempt's only reply, by its index."""
    return lambda request: replies[int(request.request_id.split("#")[1].split("/")[0])]


def test_a_program_runs_and_its_output_goes_back_into_the_attempt() -> None:
    run = drive(replies_in_order({"p#0/0": [PROGRAM], "p#0/1": [BOXED_42]}), attempts=1)
    (attempt,) = run.attempts()
    assert (attempt.answer, attempt.answer_source, attempt.failure) == ("42", "boxed", None)
    first, second = attempt.turns
    assert (first.text, first.code, first.tool_text) == (PROGRAM, "print(6 * 7)\n", "```output\n42\n```\n")
    assert first.result is not None and first.result.stdout == "42\n"
    assert (second.text, second.code, second.result) == (BOXED_42, None, None)
    spans = run.generator.requests[1].continuation
    assert [span.text for span in spans] == [PROGRAM, "```output\n42\n```\n"]
    assert len(spans[0].token_ids) == first.num_tokens and not spans[1].token_ids
    assert run.outcome.reason == "complete"


def test_the_order_of_a_run_in_its_trace() -> None:
    run = drive(replies_in_order({"p#0/0": [PROGRAM], "p#0/1": [BOXED_42]}), attempts=1)
    assert [event.kind for event in run.new_events] == [
        "problem_opened",
        "decision",
        "attempt_started",
        "decision",
        "turn_finished",
        "turn_finished",
        "attempt_finished",
        "decision",
        "problem_finished",
    ]
    data = [dict(event.data) for event in run.new_events]
    assert data[0] == {"budget_s": pytest.approx(100, abs=0.1), "affordable": None}
    seen = [data[place].pop("seen") for place in (1, 3, 7)]
    launch = {"n": 1, "asked": 1, "pillar": "code", "temperature": 0.8, "about": (), "round": 1}
    assert data[1] == {"action": "launch", **launch}
    assert data[3] == {"action": "wait"}
    assert data[2] == {"index": 0, "pillar": "code", "seed": derive_seed(7, "p", 0, 0), "temperature": 0.8, "round": 1}
    assert data[7] == {"action": "stop", "reason": "all attempts finished"}
    counts = [(item["num_finished"], item["num_in_flight"], item["num_launched"]) for item in seen]
    assert counts == [(0, 0, 0), (0, 1, 1), (1, 0, 1)], "each tells what it saw"


def test_each_turn_has_a_seed_of_its_own_and_siblings_are_one_group() -> None:
    run = drive(lambda request: PROGRAM if request.request_id.endswith("/0") else BOXED_42, attempts=3)
    seeds = [request.sampling.seed for request in run.generator.requests]
    assert len(set(seeds)) == 6
    assert {request.group for request in run.generator.requests} == {"p"}
    for request in run.generator.requests:
        index, turn = request.request_id.removeprefix("p#").split("/")
        assert request.sampling.seed == derive_seed(7, "p", int(index), int(turn))


def test_slots_are_shared_and_never_exceeded() -> None:
    running: list[int] = []

    def watch(driver: Driver, progress: RunProgress) -> None:
        running.append(sum(row.num_in_flight for row in progress.problems))

    run = drive(
        saying(BOXED_42, token_s=1.0), problems=[P, Q, R], attempts=4, max_in_flight=6, on_step=watch, budget_s=1_000
    )
    assert max(running) == 6
    assert [len(run.attempts(name)) for name in "pqr"] == [4, 4, 4]
    opened = [event.problem_id for event in run.new_events if event.kind == "problem_opened"]
    assert opened == ["p", "q", "r"]


def test_a_settled_vote_aborts_the_siblings() -> None:
    fast, slow = Reply.saying(BOXED_42), Reply.saying(BOXED_42, delay_s=1_000)
    run = drive(by_attempt({i: fast if i < 5 else slow for i in range(8)}), attempts=8, settle=True)
    record = run.record.problems["p"]
    assert record.stop_reason is not None and record.stop_reason.startswith("the leader")
    assert [attempt.failure for attempt in run.attempts()] == [None] * 5 + ["stopped"] * 3
    assert run.generator.aborted == ["p"]
    assert run.took_s < 1, "nobody waits for the slow ones"
    assert run.outcome.reason == "complete"


def test_only_the_settled_problem_is_aborted() -> None:
    def script(request: GenerateRequest) -> Reply:
        is_slow = request.group == "q" or int(request.request_id.split("#")[1][0]) >= 5
        return Reply.saying(BOXED_42, delay_s=20.0 if is_slow else 0.0)

    run = drive(script, problems=[P, Q], attempts=8, settle=True)
    assert [attempt.failure for attempt in run.attempts("q")].count(None) >= 4
    assert all(attempt.failure in (None, "stopped") for attempt in run.attempts("q"))
    q_votes = [attempt.elapsed_s for attempt in run.attempts("q") if attempt.answer]
    assert min(q_votes) >= 20


def test_the_selection_of_the_policy_stands_whatever_its_stopped_siblings_had_printed() -> None:
    def script(request: GenerateRequest) -> Reply:
        index, turn = request.request_id.removeprefix("p#").split("/")
        if int(index) < 5:
            return Reply.saying(BOXED_42, delay_s=5.0)
        return Reply.saying(PROGRAM) if turn == "0" else Reply.saying("Hmm, let me think.", delay_s=50.0)

    run = drive(script, attempts=6, settle=True, behaviour=lambda code: printed("41"))
    late = next(attempt for attempt in run.attempts() if attempt.index == 5)
    assert (late.answer, late.failure) == (None, "stopped")
    selection = run.record.problems["p"].selection
    assert selection is not None
    assert [(c.answer, c.weight) for c in selection.clusters] == [("42", 5.0)]


# --- the clock ---


def test_no_more_attempts_are_begun_than_the_clock_affords() -> None:
    """At 50 tokens/s and 450 an attempt, 100 s have room for two attempts of each of four problems, not for eight."""
    problems = [P, Q, R, replace(P, id="s")]
    long = Reply(("so ",) * 440 + (BOXED_42,), token_s=0.1)
    run = drive(lambda request: long, problems=problems, attempts=8, settle=True, tokens_per_s=50.0)
    assert [event.data["affordable"] for event in run.new_events if event.kind == "problem_opened"] == [2, 2, 2, 2]
    assert [event.data.get("n") for event in run.new_events if event.data.get("action") == "launch"][:4] == [2, 2, 2, 2]
    for name in "pqrs":
        attempts = run.attempts(name)
        assert [attempt.answer for attempt in attempts[:2]] == ["42", "42"]
        assert "out_of_time" not in {attempt.failure for attempt in attempts}


def test_time_that_is_left_over_buys_more_attempts() -> None:
    def script(request: GenerateRequest) -> Reply:
        index = int(request.request_id.split("#")[1].split("/")[0])
        if request.group == "p":
            return Reply.saying(BOXED_42)
        return Reply.saying(rf"\boxed{{{index}}}", delay_s=5.0)

    run = drive(script, problems=[P, Q], attempts=8, settle=True, tokens_per_s=45.0)
    opened = [event.data["affordable"] for event in run.new_events if event.kind == "problem_opened"]
    assert opened[0] == 3
    assert len(run.attempts("q")) > opened[1], "what p left is q's"


def test_at_the_deadline_what_a_program_printed_counts() -> None:
    run = drive(
        lambda request: (
            Reply.saying(PROGRAM)
            if request.request_id.endswith("/0")
            else Reply.saying("The program says so, and I believe it.", delay_s=8, token_s=4)
        ),
        attempts=1,
        budget_s=10.0,
    )
    (attempt,) = run.attempts()
    assert (attempt.answer, attempt.answer_source, attempt.failure) == ("42", "stdout", "out_of_time")
    assert attempt.turns[1].text == "", "aborted before its first token"
    assert run.record.problems["p"].selection.answer == "42"  # type: ignore[union-attr]
    assert (run.record.problems["p"].stop_reason, run.outcome.reason) == ("out of time", "budget")


@pytest.mark.parametrize(("abort_polls", "text"), [(0, "The answer"), (3, "The answer"), (999, None)])
def test_what_an_aborted_request_had_written_is_waited_for_but_not_for_ever(abort_polls: int, text: str | None) -> None:
    reply = Reply(("The ", "answer", " is", " not", " known"), token_s=4.0)
    run = drive(lambda request: reply, attempts=2, budget_s=10.0, abort_polls=abort_polls)
    assert [attempt.failure for attempt in run.attempts()] == ["out_of_time"] * 2
    written = [[turn.text for turn in attempt.turns] for attempt in run.attempts()]
    assert written == ([[text]] * 2 if text else [[], []])


def test_a_half_written_number_at_the_deadline_is_no_answer() -> None:
    reply = Reply(("The answer is ", "4", "2"), token_s=4.0)
    run = drive(lambda request: reply, attempts=1, budget_s=10.0)
    (attempt,) = run.attempts()
    assert attempt.turns[0].text == "The answer is 4"
    assert (attempt.answer, attempt.failure) == (None, "out_of_time")


def test_a_program_that_runs_at_the_deadline_is_cancelled_and_in_the_trace() -> None:
    run = drive(saying(PROGRAM), attempts=2, budget_s=5.0, behaviour=lambda code: printed("42", after_s=100))
    assert run.runner.cancelled == ["p#0/1", "p#1/1"]
    for attempt in run.attempts():
        assert (attempt.failure, attempt.answer) == ("out_of_time", None)
        assert attempt.turns[0].code is not None and attempt.turns[0].result is None
    assert run.took_s < 5.2


@pytest.mark.parametrize("budget_s", [0.0, 1e-9, 0.3, 1.0, 7.0])
def test_the_budget_is_kept_and_every_problem_has_an_integer(budget_s: float) -> None:
    kinds = [Problem(f"p{i}", "?", AnswerKind(low=10 * i, high=10 * i + 5)) for i in range(12)]
    step_s = 0.25
    run = drive(saying("I am still thinking about it.", token_s=step_s), problems=kinds, attempts=8, budget_s=budget_s)
    assert run.took_s <= budget_s + step_s + 0.1
    answers = [record.selection.answer for record in run.record.problems.values() if record.selection]
    assert answers == [str(10 * i) for i in range(12)]
    assert run.outcome.reason == "budget" or budget_s == 7.0
    if budget_s < 1e-3:
        assert run.kinds() == {"problem_finished": 12}, "nothing is launched without time"


def test_a_problem_that_uses_up_its_share_leaves_the_rest_to_the_others() -> None:
    def script(request: GenerateRequest) -> Reply:
        return Reply.saying(BOXED_42, delay_s=1_000.0 if request.group == "p" else 1.0)

    run = drive(script, problems=[P, Q, R], attempts=4, max_in_flight=4, budget_s=90.0)
    assert run.record.problems["p"].stop_reason == "out of time"
    assert [attempt.failure for attempt in run.attempts("p")] == ["out_of_time"] * 4
    for name in "qr":
        assert run.record.problems[name].stop_reason == "all attempts finished"
    assert run.record.problems["p"].finished_at_s == pytest.approx(30, abs=1)
    assert run.outcome.reason == "budget", "a problem was cut short: there is something to go on with"


def test_the_last_problem_may_use_all_that_is_left() -> None:
    def script(request: GenerateRequest) -> Reply:
        return Reply.saying(BOXED_42, delay_s=80.0 if request.group == "q" else 1.0)

    run = drive(script, problems=[P, Q], attempts=4, max_in_flight=4, budget_s=100.0)
    assert run.record.problems["q"].stop_reason == "all attempts finished"


def test_a_request_to_stop_ends_the_run_in_order() -> None:
    def stop(driver: Driver, progress: RunProgress) -> None:
        if any(row.num_finished for row in progress.problems):
            driver.request_stop()

    run = drive(
        by_attempt({0: BOXED_42, 1: Reply.saying("So", delay_s=50), 2: Reply.saying("So", delay_s=50)}),
        problems=[P, Q],
        attempts=3,
        max_in_flight=3,
        on_step=stop,
    )
    assert run.outcome.reason == "interrupted"
    assert [record.stop_reason for record in run.record.problems.values()] == ["interrupted", "interrupted"]
    assert sorted(str(attempt.failure) for attempt in run.attempts("p")) == ["None", "interrupted", "interrupted"]
    assert run.attempts("q") == ()
    assert run.took_s < 1


def test_a_stop_that_comes_when_all_is_done_interrupts_nothing() -> None:
    def stop(driver: Driver, progress: RunProgress) -> None:
        if all(row.state == "done" for row in progress.problems):
            driver.request_stop()

    assert drive(saying(BOXED_42), on_step=stop).outcome.reason == "complete"


# --- things that go wrong ---


def test_an_attempt_that_the_generator_loses_is_tried_again_up_to_twice_as_many() -> None:
    run = drive(lambda request: Reply.failing("the server is on fire"), attempts=3)
    assert [attempt.failure for attempt in run.attempts()] == ["generator_error"] * 6
    assert [attempt.index for attempt in run.attempts()] == list(range(6))
    assert run.record.warnings == ("p#0: the generator failed: the server is on fire",)
    assert run.record.problems["p"].selection.rule == "fallback"  # type: ignore[union-attr]


def test_a_lost_attempt_is_replaced() -> None:
    run = drive(by_attempt({0: Reply.failing("gone"), 1: BOXED_42, 2: BOXED_42}), attempts=2)
    assert [(attempt.index, attempt.failure) for attempt in run.attempts()] == [
        (0, "generator_error"),
        (1, None),
        (2, None),
    ]


def test_a_prompt_that_is_too_long_is_a_failed_attempt_and_one_warning() -> None:
    def script(request: GenerateRequest) -> Reply:
        if request.group == "p":
            raise EngineError(f"request {request.request_id!r} has 9000 prompt tokens; the engine takes 4096")
        return Reply.saying(BOXED_42)

    run = drive(script, problems=[P, Q], attempts=3)
    assert [(attempt.failure, attempt.turns) for attempt in run.attempts("p")] == [("length", ())] * 3
    assert len(run.record.warnings) == 1 and "9000 prompt tokens" in run.record.warnings[0]
    assert [attempt.answer for attempt in run.attempts("q")] == ["42"] * 3


def test_an_attempt_that_outgrows_the_model_keeps_its_answer() -> None:
    def script(request: GenerateRequest) -> Reply:
        if request.continuation:
            raise EngineError("too long")
        return Reply.saying(PROGRAM)

    run = drive(script, attempts=2)
    assert [(attempt.answer, attempt.answer_source) for attempt in run.attempts()] == [("42", "stdout")] * 2


def test_a_program_that_fails_and_is_not_corrected() -> None:
    run = drive(
        lambda request: PROGRAM if request.request_id.endswith("/0") else "I give up.",
        attempts=1,
        behaviour=lambda code: crashed(),
    )
    (attempt,) = run.attempts()
    assert (attempt.answer, attempt.failure) == (None, "tool_error")
    assert "ZeroDivisionError" in (attempt.turns[0].tool_text or "")


def test_an_attempt_ends_at_its_token_limit() -> None:
    run = drive(saying("so " * 50), attempts=1, config=AttemptConfig(max_tokens=20))
    (attempt,) = run.attempts()
    assert (attempt.num_tokens, attempt.failure) == (20, "length")


def test_what_could_not_be_kept_has_not_happened() -> None:
    class FullSink(ListSink):
        def append(self, event: TraceEvent) -> None:
            if event.kind == "attempt_finished":
                raise StorageError("the disk is full")
            super().append(event)

    sink, clock = FullSink([started([P])]), FakeClock()
    parts = WatchedGenerator(saying(BOXED_42), clock), FakeRunner(clock, lambda code: printed("1"))
    source = live_source(*parts, AttemptMaker(), CodeLimits(), clock.sleep)
    driver = Driver(source, sink, FixedPolicy(attempts=1), DriverConfig(attempts=1), clock=clock)
    with pytest.raises(StorageError, match="the disk is full"):
        driver.run([P], 10.0, {}, 0.0)
    assert [event.kind for event in sink.events][-1] == "turn_finished"


# --- what a display sees ---


def test_progress_counts_tokens_and_votes_as_they_come() -> None:
    script = by_attempt({0: BOXED_42, 1: Reply.saying(BOXED_42, token_s=1.0)})
    run = drive(script, problems=[P, Q, R], attempts=2, max_in_flight=2)
    half = next(seen for seen in run.progress if seen.problems[0].num_finished and seen.problems[1].num_tokens > 2)
    assert [row.state for row in half.problems] == ["open", "open", "waiting"]
    assert (half.problems[0].votes, half.problems[0].num_in_flight) == ((("42", 1),), 1)
    assert half.num_tokens == sum(row.num_tokens for row in half.problems)
    totals = [progress.num_tokens for progress in run.progress]
    assert totals == sorted(totals)
    last = run.progress[-1]
    assert last.num_tokens == sum(attempt.num_tokens for name in "pqr" for attempt in run.attempts(name))
    assert run.outcome.stats["num_tokens"] == last.num_tokens
    assert last.at_s == pytest.approx(run.took_s, abs=0.01)
    assert last.remaining_s == pytest.approx(100 - run.took_s, abs=0.01)
