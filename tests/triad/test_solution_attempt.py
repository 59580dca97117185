"""One attempt as a state machine: told what was written and what a program did, it says what comes next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mathlete.core.code import ToolResult
from mathlete.core.generation import Completion, FinishReason, Usage
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.trace import decode_attempt, encode
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.pillar import Continue, Done, RunProgram, Step
from mathlete.triad.solution_attempt import CODE, REASONING, PillarSpec, SolutionAttempt

PROGRAM = "Compute:\n```python\nprint(6 * 7)\n```\n"
CLOSING = "```\n"


def new(
    max_tokens: int = 100,
    max_programs: int = 4,
    kind: AnswerKind | None = None,
    spec: PillarSpec = CODE,
    thinking_budget: int | None = None,
) -> SolutionAttempt:
    problem = Problem("p", "How many?", kind or AnswerKind())
    config = AttemptConfig(max_tokens=max_tokens, max_programs=max_programs, thinking_budget=thinking_budget)
    return SolutionAttempt(problem, 3, 7, 0.8, 10.0, config, spec=spec)


def wrote(
    text: str, reason: FinishReason = "stop", num_tokens: int = 5, stop: str | None = None, error: str | None = None
) -> Completion:
    stop = CLOSING if stop is None and reason == "stop" and text.endswith(CLOSING) else stop
    values = tuple(0.1 * i for i in range(num_tokens))
    return Completion(text, tuple(range(num_tokens)), values, values, reason, Usage(10, 0, num_tokens), stop, error)


def ran(stdout: str = "42\n", **fields: str) -> ToolResult:
    return ToolResult(**{"status": "ok", "stdout": stdout, "stderr": "", "elapsed_s": 0.1, **fields})  # type: ignore[arg-type]


def runs(code: str) -> RunProgram:
    return RunProgram(code, in_session=True)


def ended(step: Step) -> Done:
    assert isinstance(step, Done)
    return step


def test_reason_run_answer() -> None:
    attempt = new()
    assert attempt.on_completion(wrote(PROGRAM), 11.0) == runs("print(6 * 7)\n")
    assert attempt.on_result(ran(), 12.0) == Continue()
    done = ended(attempt.on_completion(wrote(r"It is \boxed{42}."), 13.5)).attempt
    assert (done.id, done.problem_id, done.index, done.pillar) == ("p#3", "p", 3, "code")
    assert (done.answer, done.answer_source, done.failure) == ("42", "boxed", None)
    assert (done.num_tokens, done.elapsed_s, len(done.turns)) == (10, 3.5, 2)
    assert set(done.features) == {"mean_entropy", "median_entropy", "tail_entropy", "mean_logprob"}
    assert decode_attempt(encode(done)) == done


def test_the_second_request_goes_on_where_the_first_ended() -> None:
    attempt = new(max_tokens=20)
    first = attempt.next_request()
    assert (first.request_id, first.group, first.continuation) == ("p#3/0", "p", ())
    assert first.sampling.max_tokens == 20
    attempt.on_completion(wrote(PROGRAM, num_tokens=8), 11.0)
    attempt.on_result(ran(), 12.0)
    second = attempt.next_request()
    assert (second.request_id, second.messages) == ("p#3/1", first.messages)
    assert [span.text for span in second.continuation] == [PROGRAM, "```output\n42\n```\n"]
    assert [span.token_ids for span in second.continuation] == [tuple(range(8)), ()]
    assert second.sampling.max_tokens == 12, "the limit is the attempt's, not the turn's"
    assert second.sampling.seed != first.sampling.seed


def test_output_begins_on_a_line_of_its_own() -> None:
    attempt = new()
    text = PROGRAM.rstrip("\n")  # end of text right behind the fence
    assert isinstance(attempt.on_completion(wrote(text), 11.0), RunProgram)
    attempt.on_result(ran(), 12.0)
    assert attempt.turns[0].tool_text == "\n```output\n42\n```\n"
    assert attempt.next_request().continuation[1].text == attempt.turns[0].tool_text


def test_a_fence_that_closes_nothing_to_run_lets_the_model_go_on() -> None:
    attempt = new()
    assert attempt.on_completion(wrote("A table:\n```\n"), 11.0) == Continue()
    assert attempt.on_completion(wrote("1 2 3\n```\n"), 12.0) == Continue()
    assert attempt.on_completion(wrote("And now\n```python\nprint(1)\n```\n"), 13.0) == RunProgram(
        "print(1)\n", in_session=True
    )


def test_a_block_may_be_opened_in_one_turn_and_closed_in_the_next() -> None:
    attempt = new()
    assert attempt.on_completion(wrote("```python\ns = 'a\n```\n", stop=CLOSING), 11.0) == RunProgram(
        "s = 'a\n", in_session=True
    )
    attempt = new()
    assert attempt.on_completion(wrote("````python\ns = '''\n```\n"), 11.0) == Continue()
    assert attempt.on_completion(wrote("'''\n````\n", stop=CLOSING), 12.0) == RunProgram(
        "s = '''\n```\n'''\n", in_session=True
    )


def test_a_program_that_has_run_is_not_run_again() -> None:
    attempt = new()
    attempt.on_completion(wrote(PROGRAM), 11.0)
    attempt.on_result(ran(), 12.0)
    assert attempt.on_completion(wrote("```\n"), 13.0) == Continue()


def test_programs_are_limited_and_the_last_output_stands() -> None:
    attempt = new(max_programs=2)
    for value in ("1\n", "2\n"):
        assert isinstance(attempt.on_completion(wrote(PROGRAM), 11.0), RunProgram)
        assert attempt.on_result(ran(value), 12.0) == Continue()
    assert attempt.on_completion(wrote(PROGRAM), 13.0) == Continue(), "the third is not run"
    done = ended(attempt.on_completion(wrote("That is all."), 14.0)).attempt
    assert (done.answer, done.answer_source) == ("2", "stdout")
    assert [turn.code is not None for turn in done.turns] == [True, True, False, False]


def test_the_limit_in_the_middle_of_the_text() -> None:
    done = ended(new(max_tokens=5).on_completion(wrote("I would say that", "length"), 11.0)).attempt
    assert (done.answer, done.failure) == (None, "length")


def test_the_limit_right_behind_a_program_still_runs_it() -> None:
    attempt = new(max_tokens=5)
    assert isinstance(attempt.on_completion(wrote(PROGRAM, "length"), 11.0), RunProgram)
    done = ended(attempt.on_result(ran(), 12.0)).attempt
    assert (done.answer, done.answer_source, done.failure) == ("42", "stdout", None)


def test_a_stop_at_the_very_limit_does_not_ask_for_nothing() -> None:
    done = ended(new(max_tokens=5).on_completion(wrote("A table:\n```\n"), 11.0)).attempt
    assert done.failure == "length"


@pytest.mark.parametrize(
    ("status", "failure"), [("ok", "no_answer"), ("error", "tool_error"), ("timeout", "tool_error")]
)
def test_why_there_is_no_answer(status: str, failure: str) -> None:
    attempt = new()
    attempt.on_completion(wrote(PROGRAM), 11.0)
    attempt.on_result(ran("nothing much\n", status=status), 12.0)
    assert ended(attempt.on_completion(wrote("Well."), 13.0)).attempt.failure == failure


def test_an_answer_outside_the_interval_is_refused_and_said() -> None:
    attempt = new(kind=AnswerKind(low=0, high=9))
    done = ended(attempt.on_completion(wrote(r"\boxed{42}"), 11.0)).attempt
    assert (done.answer, done.failure) == (None, "out_of_range")


@pytest.mark.parametrize(("reason", "failure"), [("error", "generator_error"), ("abort", "interrupted")])
def test_a_lost_completion_ends_the_attempt_with_its_reason(reason: FinishReason, failure: str) -> None:
    done = ended(new().on_completion(wrote("So far", reason, error="lost"), 11.0)).attempt
    assert (done.answer, done.failure, done.turns[0].text) == (None, failure, "So far")


@pytest.mark.parametrize("reason", ["error", "abort"])
def test_a_lost_completion_does_not_lose_what_a_program_printed(reason: FinishReason) -> None:
    attempt = new()
    attempt.on_completion(wrote(PROGRAM), 11.0)
    attempt.on_result(ran(), 12.0)
    done = ended(attempt.on_completion(wrote("The answer is 4", reason), 13.0)).attempt
    assert (done.answer, done.answer_source) == ("42", "stdout")
    assert done.failure == ("interrupted" if reason == "abort" else None)


def test_an_attempt_that_a_settled_vote_stops_has_no_vote() -> None:
    attempt = new()
    attempt.on_completion(wrote(PROGRAM), 11.0)
    attempt.on_result(ran(), 12.0)
    done = attempt.end(13.0, "stopped").attempt
    assert (done.answer, done.answer_source, done.failure) == (None, None, "stopped")


def test_a_complete_program_in_an_aborted_text_is_not_run() -> None:
    attempt = new()
    done = ended(attempt.on_completion(wrote(PROGRAM, "abort"), 11.0)).attempt
    assert (done.failure, done.turns[0].result) == ("interrupted", None)


def test_the_answer_after_the_last_program_goes_before_what_it_printed() -> None:
    attempt = new()
    attempt.on_completion(wrote(r"I guess \boxed{1}. Check:" + "\n" + PROGRAM), 11.0)
    attempt.on_result(ran("42\n"), 12.0)
    done = ended(attempt.on_completion(wrote("Fine."), 13.0)).attempt
    assert (done.answer, done.answer_source) == ("42", "stdout"), "a guess before the program does not count"


def test_an_attempt_that_never_wrote_anything_can_be_ended() -> None:
    done = new().end(11.0, "length").attempt
    assert (done.turns, done.num_tokens, done.answer, done.failure, done.features) == ((), 0, None, "length", {})


def test_ending_twice_says_the_same() -> None:
    attempt = new()
    attempt.on_completion(wrote("Hm", "abort"), 11.0)
    assert attempt.end(12.0, "stopped") == attempt.end(12.0, "stopped")


def test_features_are_of_the_tokens_of_all_turns() -> None:
    attempt = new()
    attempt.on_completion(wrote(PROGRAM, num_tokens=3), 11.0)
    attempt.on_result(ran(), 12.0)
    last = replace(wrote(r"\boxed{42}", num_tokens=2), logprobs=(-1.0, -2.0), entropies=(), top_means=(-8.0, -10.0))
    done = ended(attempt.on_completion(last, 13.0)).attempt
    assert done.features["mean_logprob"] == pytest.approx((0.1 + 0.2 - 3.0) / 5)
    assert done.features["mean_entropy"] == pytest.approx(0.1), "over those that are known"
    assert done.features["mean_confidence"] == 9.0
    assert done.turns[0].result is not None and done.turns[1].top_means == (-8.0, -10.0)


@pytest.mark.parametrize("name", ["max_tokens", "max_programs"])
def test_limits_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"AttemptConfig.{name} must be >= 1, not 0"):
        AttemptConfig(**{name: 0})


def test_reasoning_is_one_request_without_stops_and_answers_from_its_text() -> None:
    attempt = new(spec=REASONING)
    (request,) = attempt.next_requests()
    assert request.sampling.stop == () and request.sampling.max_tokens == 100
    assert request.messages != new().next_request().messages
    done = ended(attempt.on_completion(wrote(r"6 times 7 is 42, so \boxed{42}."), 11.0)).attempt
    assert (done.pillar, done.answer, done.answer_source, done.failure) == ("reasoning", "42", "boxed", None)


def test_reasoning_runs_no_programs() -> None:
    attempt = new(spec=REASONING)
    done = ended(attempt.on_completion(replace(wrote(PROGRAM), stop=None), 11.0)).attempt
    assert (done.answer, done.failure, done.turns[0].code) == (None, "no_answer", None)


@pytest.mark.parametrize(("given", "max_tokens", "budget"), [(None, 100, 75), (None, 10_000, 8_976), (30, 100, 30)])
def test_thinking_is_closed_in_time_for_the_answer(given: int | None, max_tokens: int, budget: int) -> None:
    attempt = new(max_tokens, spec=REASONING, thinking_budget=given)
    assert attempt.next_request().sampling.thinking_budget == budget
    assert new(max_tokens, thinking_budget=given).next_request().sampling.thinking_budget == given, "code is left alone"


def test_an_answer_counts_behind_closed_thinking_and_not_in_thinking_that_was_cut() -> None:
    closed = new(spec=REASONING)
    text = "<think>\nMaybe \\boxed{7}? No.\n</think>\n\nIt is \\boxed{42}."
    assert ended(closed.on_completion(wrote(text), 11.0)).attempt.answer == "42"
    cut = new(spec=REASONING)
    done = ended(cut.on_completion(wrote("<think>\nThe answer is 4", "length"), 11.0)).attempt
    assert (done.answer, done.failure) == (None, "length")


def test_the_model_is_told_when_its_session_was_restarted() -> None:
    told = []
    for restarted in (False, True):
        attempt = new()
        attempt.on_completion(wrote(PROGRAM), 11.0)
        attempt.on_result(replace(ran(), session_restarted=restarted), 12.0)
        told.append(attempt.turns[0].tool_text or "")
    assert told[0] == "```output\n42\n```\n"
    assert "restarted" in told[1] and "gone" in told[1] and told[1].endswith("\n42\n```\n")
