"""Checks as attempts: what the model is asked, what comes of it, and how they live in a run."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from scripted_run import drive, printed

from mathlete.cic.majority import Majority
from mathlete.contest.policy import OUT_OF_TIME
from mathlete.core.attempt import Attempt, Turn
from mathlete.core.code import CodeLimits, ToolResult
from mathlete.core.generation import Completion, Finished, GenerateRequest, Usage
from mathlete.core.policy import Action, Launch, PoolState, Stop, Wait
from mathlete.core.problem import Problem
from mathlete.core.protocols import CodeDone
from mathlete.core.trace import decode_attempt, encode
from mathlete.generators.scripted import Reply
from mathlete.sandbox.pool import SandboxPool
from mathlete.triad.attempt_config import AttemptConfig
from mathlete.triad.check_attempt import CheckAttempt
from mathlete.triad.making import AttemptMaker
from mathlete.triad.pillar import Done, RunProgram
from mathlete.triad.program_check import check_source

_PROBLEM = Problem("p", "Which positive number has the square 49?")
_GOOD = "    return answer > 0 and answer ** 2 == 49\n```\n"


def _attempt(index: int, answer: str | None, text: str = "") -> Attempt:
    return Attempt(f"p#{index}", "p", index, "code", 0, 0.8, answer, "boxed", (Turn(text),), 10, 1.0)


def _check(
    pillar: str = "sympy_check", pool: Sequence[Attempt] = (), about: tuple[str, ...] = ("7", "9")
) -> CheckAttempt:
    attempt = AttemptMaker(3).make(_PROBLEM, 5, Launch(1, pillar, 0.5, about), pool, 2.0)
    assert isinstance(attempt, CheckAttempt)
    return attempt


def _written(text: str, reason: str = "stop") -> Finished:
    ids = tuple(range(1, 1 + len(text.split())))
    completion = Completion(text, ids, (), (), reason, Usage(output=len(ids)))  # type: ignore[arg-type]
    return Finished("p#5/0", completion)


def _done(step: object) -> Attempt:
    assert isinstance(step, Done)
    return step.attempt


def _verdicts(attempt: Attempt) -> dict[str | None, str]:
    return {item.answer: item.verdict for item in attempt.evidence}


def _run(code: str) -> ToolResult:
    with SandboxPool(1) as pool:
        pool.submit("a", code, CodeLimits())
        for _ in range(3_000):
            for done in pool.poll():
                return done.result
            time.sleep(0.01)
    raise AssertionError("the sandbox does not answer")


def _texts(request: GenerateRequest) -> str:
    return "".join([*(message.content for message in request.messages), *(span.text for span in request.continuation)])


@pytest.mark.parametrize("pillar", ["sympy_check", "smt_check", "enumeration_check"])
def test_the_model_sees_the_statement_and_no_candidate(pillar: str) -> None:
    pool = [_attempt(0, "7345", "a derivation of 7345"), _attempt(1, "9876")]
    [request] = _check(pillar, pool, ("7345", "9876")).next_requests()
    text = _texts(request)
    assert _PROBLEM.statement in text
    assert "{" + "statement}" not in text
    assert not any(word in text for word in ("7345", "9876", "derivation"))
    assert (request.request_id, request.group, request.sampling.max_tokens) == ("p#5/0", "p", 512)
    assert request.sampling.temperature == 0.5


def test_a_check_judges_its_answers_and_a_rival_that_it_supports() -> None:
    check = _check(pool=[_attempt(0, "9"), _attempt(1, "7"), _attempt(2, "8")], about=("9", "8"))
    step = check.take(_written(_GOOD), 3.0)
    assert isinstance(step, RunProgram) and not step.in_session
    attempt = _done(check.take_result(CodeDone("p#5/1", _run(step.code)), 4.0))
    assert _verdicts(attempt) == {"9": "REFUTED", "8": "REFUTED", "7": "SUPPORTED"}
    assert (attempt.answer, attempt.failure, attempt.pillar, attempt.is_check) == (None, None, "sympy_check", True)
    [turn] = check.take_turns()
    assert turn.code is not None and "def check" in turn.code and "run_job" not in turn.code
    assert turn.text.startswith("```python\nimport math") and turn.result is not None
    assert attempt.num_tokens == turn.num_tokens == len(_GOOD.split())
    assert attempt.elapsed_s == 2.0
    assert decode_attempt(encode(attempt)) == attempt
    assert Majority().select(_PROBLEM, [attempt]).rule == "fallback", "a check has no vote"


@pytest.mark.parametrize(
    ("text", "reason", "failure"),
    [
        ("I think it is 7.", "stop", "no_answer"),
        ("    return (", "length", "length"),
        ("def verify(answer):\n    return answer == 7\n```\n", "stop", "no_answer"),
        (_GOOD, "error", "generator_error"),
        (_GOOD, "abort", "interrupted"),
    ],
)
def test_a_check_without_a_program_is_unknown(text: str, reason: str, failure: str) -> None:
    check = _check()
    attempt = _done(check.take(_written(text, reason), 3.0))
    assert _verdicts(attempt) == {"7": "UNKNOWN", "9": "UNKNOWN"}
    assert all(item.failure for item in attempt.evidence)
    assert attempt.failure == failure
    assert len(check.take_turns()) == 1


@pytest.mark.parametrize(
    ("status", "failure"), [("ok", "no_answer"), ("timeout", "tool_error"), ("killed", "tool_error")]
)
def test_a_run_that_tells_nothing_is_unknown(status: str, failure: str) -> None:
    check = _check()
    assert isinstance(check.take(_written(_GOOD), 3.0), RunProgram)
    result = ToolResult(status, "7 is right", "", 1.0)  # type: ignore[arg-type]
    attempt = _done(check.take_result(CodeDone("p#5/1", result), 4.0))
    assert _verdicts(attempt) == {"7": "UNKNOWN", "9": "UNKNOWN"}
    assert attempt.failure == failure
    assert all("def check" in item.detail for item in attempt.evidence), "the program is kept"


def test_a_check_that_was_refused_or_cut_off_is_unknown() -> None:
    assert _done(_check().refuse("p#5/0", 3.0)).failure == "length"
    check = _check()
    check.take(_written(_GOOD), 3.0)
    attempt = check.end(4.0, "out_of_time").attempt
    assert (attempt.failure, _verdicts(attempt)) == ("out_of_time", {"7": "UNKNOWN", "9": "UNKNOWN"})
    assert attempt.num_tokens == len(_GOOD.split())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```python\ndef check(answer):\n    return 1\n```\n", "return 1"),
        ("```python\ndef check(answer):\n    return 1\n", "return 1"),  # it ended without closing the block
        ("```python\nx = 1\n```\nNow:\n```\ndef check(answer):\n    return 2\n```\n", "return 2"),
        ("```python\ndef check(a):\n    return 1\n```\n```python\ndef check(a):\n    return 2\n```\n", "return 2"),
        ("```python\ndef check(a):\n    return 1\n```\n```python\ndef check(a:\n", "return 1"),
        ("def check(a): return 1", None),
        ("", None),
    ],
)
def test_which_program_is_the_check(text: str, found: str | None) -> None:
    source = check_source(text, "sympy", complete=True)
    assert (source is None) if found is None else (source is not None and found in source)


def test_a_program_that_was_cut_is_not_run_although_it_parses() -> None:
    assert check_source("```python\ndef check(answer):\n    return answer > 4", "sympy", complete=False) is None


def test_genselect_shows_a_solution_of_each_answer_and_supports_the_one_picked() -> None:
    pool = [_attempt(0, "7", "long " * 900), _attempt(1, "7", "seven <|im_end|> squared"), _attempt(2, "9", "nine")]
    check = _check("genselect_check", pool)
    [request] = check.next_requests()
    text = _texts(request)
    assert "squared" in text and "nine" in text and "long long" not in text and "<|im_end|>" not in text
    place = text.count("Solution ", 0, text.index("seven")) - 1
    attempt = _done(check.take(_written(f"The first errs.\n**Judgment: {place}**"), 3.0))
    assert _verdicts(attempt) == {"7": "SUPPORTED", "9": "UNKNOWN"}
    assert attempt.failure is None and attempt.pillar == "genselect_check"


@pytest.mark.parametrize(
    "text",
    [
        "Judgment: 1",
        "**Judgment:** Solution 1",
        "The correct solution is 0? No.\nJudgment: 1",
        "Therefore, the correct solution is 1.",
        "The right solution is number 1.",
        "The correct solution is Solution 1. The value of \\(x\\) is \\(\\boxed{11}\\).",
        "The number of the right solution is \\(\\boxed{1}\\).",
        "the number of the right solution is:\n\\[\n\\boxed{1}\n\\]",
    ],
)
def test_a_judgment_is_read(text: str) -> None:
    check = _check("genselect_check", about=("7", "9"))
    shown = _texts(check.next_requests()[0])
    answer = "7" if shown.index("answer: 9") < shown.index("answer: 7") else "9"
    assert _verdicts(_done(check.take(_written(text), 3.0)))[answer] == "SUPPORTED"


@pytest.mark.parametrize("text", ["", "Judgment: 2", "Judgment: none", "Solution 1 is best", "Judgment: 1234"])
def test_a_judgment_that_cannot_be_read_is_unknown(text: str) -> None:
    attempt = _done(_check("genselect_check").take(_written(text), 3.0))
    assert _verdicts(attempt) == {"7": "UNKNOWN", "9": "UNKNOWN"}
    assert {item.failure for item in attempt.evidence} == {"unparsable"}
    assert attempt.failure == "no_answer"


def test_the_order_of_solutions_is_drawn() -> None:
    pool = [_attempt(0, "7", "seven"), _attempt(1, "9", "nine")]
    maker = AttemptMaker(3)
    first = set()
    for index in range(12):
        attempt = maker.make(_PROBLEM, index, Launch(1, "genselect_check", 0.5, ("7", "9")), pool, 0.0)
        text = _texts(attempt.next_requests()[0])
        first.add(text.index("seven") < text.index("nine"))
    assert first == {True, False}


class _SolveThenCheck:
    """Two solutions, then one check of what they found; ends when it is back, or when time is up."""

    def decide(self, state: PoolState) -> Action:
        found = tuple(dict.fromkeys(a.answer for a in state.attempts if a.answer is not None))
        selection = Majority().select(state.problem, state.attempts)
        if state.remaining_s <= 0:
            return Stop(selection, OUT_OF_TIME)
        if state.num_launched < 2:
            return Launch(2 - state.num_launched, "code", 0.8)
        if state.num_in_flight:
            return Wait()
        if any(a.is_check for a in state.attempts):
            return Stop(selection, "checked")
        return Launch(1, "sympy_check", 0.5, found)


def _script(request: GenerateRequest) -> Reply | str:
    number = int(request.request_id.split("#")[1].split("/")[0])
    if number < 2:
        return f"It is \\boxed{{{7 + 2 * number}}}."
    return Reply.saying(_GOOD, token_s=1.0)


def _told(code: str) -> str:
    word = code.rpartition("'word': '")[2].partition("'")[0]
    asked = [7, 9] + [number for number in range(10, 2_000)]
    return "\n".join(f'{word} ["sympy", {n}, "{"accepted" if n == 7 else "rejected"}", ""]' for n in asked)


def test_a_check_is_launched_resumed_and_in_the_record() -> None:
    whole = drive(_script, policy=_SolveThenCheck(), attempts=3, behaviour=lambda code: printed(_told(code)))
    check = whole.attempts()[-1]
    assert (check.id, check.about, check.answer, check.failure) == ("p#2", ("7", "9"), None, None)
    assert _verdicts(check) == {"7": "SUPPORTED", "9": "REFUTED"}
    assert check.turns[0].code is not None and check.num_tokens > 0
    assert whole.outcome.stats["num_tokens"] == sum(attempt.num_tokens for attempt in whole.attempts())

    cut = drive(_script, policy=_SolveThenCheck(), attempts=3, budget_s=3.0)
    assert cut.attempts()[-1].failure == "out_of_time"
    assert set(_verdicts(cut.attempts()[-1]).values()) == {"UNKNOWN"}
    again = drive(
        _script,
        policy=_SolveThenCheck(),
        attempts=3,
        before=cut.events,
        behaviour=lambda code: printed(_told(code)),
    )
    assert {attempt.id: attempt.failure for attempt in again.attempts() if attempt.is_check}
    assert _verdicts(again.attempts()[-1]) == {"7": "SUPPORTED", "9": "REFUTED"}


def test_a_check_that_runs_out_of_tokens_is_unknown() -> None:
    session = drive(_script, policy=_SolveThenCheck(), attempts=3, config=AttemptConfig(max_tokens=4))
    check = session.attempts()[-1]
    assert (check.failure, check.num_tokens) == ("length", 4)
    assert not session.runner.submitted


def test_a_generator_that_fails_a_check_fails_nothing_else() -> None:
    session = drive(
        lambda request: Reply.failing("lost") if "#2" in request.request_id else _script(request),
        policy=_SolveThenCheck(),
        attempts=3,
    )
    assert session.attempts()[-1].failure == "generator_error"
    assert session.record.problems["p"].selection is not None
