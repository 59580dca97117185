from __future__ import annotations

import pytest

from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.selection import AnswerCluster, Selection
from mathlete.lab.metrics import attempt_rows
from mathlete.lab.outcomes import outcomes_of_run
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.rightness import attempt_is_right, choice_is_right, is_right, recorded_as_right

HALVES = ("0.5", "\\frac{1}{2}", "0.5", "3", None)


def record(gold: str | None = "1/2", correct: frozenset[str] | None = frozenset({"p#0", "p#1"})) -> ProblemRecord:
    attempts = tuple(
        Attempt(f"p#{n}", "p", n, "code", 1, 0.8, answer, None, (), 1, 1.0) for n, answer in enumerate(HALVES)
    )
    chosen = Selection("0.5", "majority", 0.5, (AnswerCluster("0.5", 2.0, ("p#0", "p#2")),))
    return ProblemRecord(Problem("p", "Half of one?"), attempts, chosen, gold=gold, correct=correct)


def test_who_judged_the_attempts_has_the_last_word_on_answers_that_they_gave() -> None:
    judged = record()
    assert [is_right(judged, answer) for answer in ("0.5", "\\frac{1}{2}", "3", "1/2", "2/4")] == [
        True, True, False, True, False,
    ]  # fmt: skip
    assert [attempt_is_right(judged, item) for item in judged.attempts] == [True, True, False, False, False]
    assert choice_is_right(judged) is True
    assert not is_right(record("3"), "3"), "an attempt said so, and was not found right"


def test_without_its_attempts_a_choice_is_judged_by_those_that_it_names() -> None:
    judged = record()
    outline = ProblemRecord(judged.problem, selection=judged.selection, gold=judged.gold, correct=judged.correct)
    assert choice_is_right(outline) is True


@pytest.mark.parametrize(
    ("answer", "right"), [("12", True), ("012", True), (" 12 ", True), ("+12", True), ("1", False)]
)
def test_otherwise_the_label_decides(answer: str, right: bool) -> None:
    assert is_right(record("12", None), answer) is right


def test_nothing_is_right_or_wrong_while_nobody_knows() -> None:
    unknown = record(None, None)
    assert choice_is_right(unknown) is None and attempt_is_right(unknown, unknown.attempts[0]) is None
    assert not is_right(unknown, "0.5")


def test_no_answer_yet_is_wrong() -> None:
    assert choice_is_right(ProblemRecord(Problem("p", "?"), gold="1")) is False


def test_a_recording_is_judged_alike() -> None:
    judged = record()
    told = tuple(attempt_is_right(judged, item) is True for item in judged.attempts)
    item = RecordedProblem(judged.problem, "1/2", "p", judged.attempts, told)
    for answer in ("0.5", "\\frac{1}{2}", "3", "1/2", "2/4"):
        assert recorded_as_right(item, answer) is is_right(judged, answer)


def test_all_figures_of_a_run_ask_the_same() -> None:
    run = RunRecord({}, {"p": record()})
    (row,), (outcome,) = attempt_rows(run), outcomes_of_run(run)
    assert row.correct == (True, True, False, False, False) and row.selected_correct and outcome.right
