from collections.abc import Sequence

import pytest

from mathlete.core.attempt import Attempt, Failure, Turn
from mathlete.core.code import ToolResult
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.selection import FALLBACK, Selection
from mathlete.lab.post_mortem import AttemptToll, Cause, Overlooked, post_mortem

GOLD = "42"


def attempt(
    index: int,
    answer: str | None,
    text: str = "so",
    *,
    failure: Failure | None = None,
    stdout: str | None = None,
    pillar: str = "code",
    num_tokens: int = 10,
) -> Attempt:
    result = None if stdout is None else ToolResult("ok", stdout, "", 0.1)
    turns = (Turn(text, result=result, num_tokens=num_tokens),) if text else ()
    return Attempt(
        f"p#{index}", "p", index, pillar, 1, 0.8, answer, None if answer is None else "boxed", turns, num_tokens, 1.0,
        failure=failure,
    )  # fmt: skip


def record(attempts: Sequence[Attempt], chosen: str, gold: str | None = GOLD, **fields: object) -> ProblemRecord:
    rule = FALLBACK if not any(item.answer for item in attempts) else "majority"
    problem = Problem("p", "How many?", AnswerKind(low=0, high=99_999))
    return ProblemRecord(problem, tuple(attempts), Selection(chosen, rule, 0.5), "done", 0.0, 5.0, gold=gold, **fields)  # type: ignore[arg-type]


def run_of(*records: ProblemRecord) -> RunRecord:
    return RunRecord({}, {f"p{number}": item for number, item in enumerate(records)})


def cause_of(attempts: Sequence[Attempt], chosen: str = "7", gold: str | None = GOLD) -> Cause | None:
    problems = post_mortem(run_of(record(attempts, chosen, gold))).problems
    return problems[0].cause if problems else None


@pytest.mark.parametrize(
    ("attempts", "cause"),
    [
        ([attempt(0, "7"), attempt(1, "7"), attempt(2, "42")], "selection"),
        ([attempt(0, "7"), attempt(1, "8"), attempt(2, None, failure="length")], "knowledge"),
        ([attempt(0, "7"), attempt(1, None, failure="length")], "knowledge"),  # level: what came to an end counts
        ([attempt(0, "7"), *(attempt(i, None, failure="length") for i in (1, 2))], "no_answer"),
        ([attempt(0, None, failure="no_answer"), attempt(1, None, failure="length")], "no_answer"),
        ([attempt(0, "7"), *(attempt(i, None, failure="tool_error") for i in (1, 2))], "tool_error"),
        ([attempt(i, None, failure="out_of_time") for i in range(2)], "out_of_time"),
        ([], "out_of_time"),
        ([attempt(0, None, failure="stopped")], "out_of_time"),
        ([attempt(0, None, failure="interrupted"), attempt(1, None, failure="generator_error")], "cut_off"),
        ([attempt(i, None, "\\boxed{100000}", failure="out_of_range") for i in range(2)], "extraction"),
        ([attempt(0, "7", "First \\boxed{42}."), attempt(1, "7"), attempt(2, "7")], "extraction"),
        ([attempt(0, "7", stdout="n = 42\n"), attempt(1, "7")], "extraction"),
        ([attempt(0, None, "This leaves 40 + 2 = 42 of them.", failure="no_answer"), attempt(1, "7")], "extraction"),
    ],
)
def test_each_cause(attempts: list[Attempt], cause: Cause) -> None:
    assert cause_of(attempts) == cause


def test_a_number_that_only_happens_to_stand_there_is_no_answer() -> None:
    assert cause_of([attempt(0, "7", "42 eggs are sold, 7 are left: \\boxed{7}")]) == "knowledge"
    assert cause_of([attempt(0, None, "We add 42", failure="length")]) == "no_answer"  # it broke off there
    assert cause_of([attempt(0, None, "It is 42.5", failure="no_answer")]) == "no_answer"
    assert cause_of([attempt(0, None, "It is x_42", failure="no_answer")]) == "no_answer"


def test_what_is_right_or_open_has_not_failed() -> None:
    right = record([attempt(0, "42")], "042")
    open_ = ProblemRecord(Problem("q", "?"), (attempt(0, "7"),), gold=GOLD)
    found = post_mortem(run_of(right, open_))
    assert found.problems == () and found.num_finished == 1 and found.num_graded == 1
    assert found.right == AttemptToll(1, 10) and found.tolls == {}


def test_a_right_guess_of_nobody_is_not_blamed_on_the_pool() -> None:
    assert cause_of([attempt(0, None, failure="length")], chosen="42") is None


def test_without_gold_only_missing_answers_are_failures() -> None:
    assert cause_of([attempt(0, "7")], gold=None) is None
    assert cause_of([attempt(0, None, failure="length")], chosen="0", gold=None) == "no_answer"
    found = post_mortem(run_of(record([attempt(0, "7"), attempt(1, None, failure="tool_error")], "7", None)))
    assert found.tolls == {"tool_error": AttemptToll(1, 10)} and found.right == AttemptToll()


def test_the_pool_and_the_attempts_are_told() -> None:
    pool = [attempt(0, "7"), attempt(1, "7"), attempt(2, "42"), attempt(3, None, failure="length", num_tokens=99)]
    checks = [attempt(4, None, failure="no_answer", pillar="sympy_check")]
    found = post_mortem(run_of(record([attempt(0, "42")], "42"), record([*pool, *checks], "7")))
    (problem,) = found.problems
    assert (problem.number, problem.answer, problem.gold, problem.stop_reason) == (2, "7", "42", "done")
    assert problem.pool == {"7": 2, "42": 1} and problem.attempts == {"knowledge": 2, "no_answer": 1}
    assert found.tolls == {"knowledge": AttemptToll(2, 20), "no_answer": AttemptToll(1, 99)}
    assert found.right == AttemptToll(2, 20)
    assert found.of_cause("selection") == (problem,) and found.of_cause("knowledge") == ()


def test_overlooked_numbers_are_named_with_their_place() -> None:
    pool = [
        attempt(0, "7", "\\boxed{42} or rather \\boxed{7}", stdout="42"),
        attempt(1, None, "\\boxed{-5}", failure="out_of_range"),
        attempt(2, None, "\\boxed{x}", failure="out_of_range"),
        attempt(3, "7", "nothing", stdout="the total is 42"),
    ]
    (problem,) = post_mortem(run_of(record(pool, "7"))).problems
    assert problem.overlooked == (
        Overlooked("p#1", "out_of_range", "-5"),
        Overlooked("p#2", "out_of_range", ""),
        Overlooked("p#3", "output", "42"),
    ) or problem.overlooked[0] == Overlooked("p#0", "output", "42")
    assert {item.place for item in problem.overlooked} == {"output", "out_of_range"}


def test_whoever_judged_the_attempts_is_believed() -> None:
    pool = [attempt(0, "1/2"), attempt(1, "0.5"), attempt(2, "3")]
    judged = record(pool, "3", "\\frac12", correct=frozenset({"p#0", "p#1"}))
    assert post_mortem(run_of(judged)).problems[0].cause == "selection"
    assert post_mortem(run_of(record(pool, "0.5", "\\frac12", correct=frozenset({"p#1"})))).problems == ()


def test_attempts_without_their_text_are_counted_and_not_searched() -> None:
    pool = [attempt(0, None, "", failure="no_answer"), attempt(1, "7", "")]
    found = post_mortem(run_of(record(pool, "7")))
    assert found.num_unread == 2 and found.problems[0].cause == "knowledge"


@pytest.mark.parametrize("text", ["9" * 5_000, "\\boxed{" * 500, "\x00\ud800", "\\boxed{10^{10^{10}}}", "1," * 3_000])
def test_hostile_text_is_read_without_harm(text: str) -> None:
    assert cause_of([attempt(0, None, text, failure="no_answer", stdout=text)]) == "no_answer"
    assert cause_of([attempt(0, None, text, failure="no_answer")], gold=text) is not None
