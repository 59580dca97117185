"""Two runs side by side: pairing, the figures by hand, what is left out, and what may be said."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.selection import FALLBACK, Selection
from mathlete.lab.comparing import compare_outcomes, compare_runs
from mathlete.lab.outcomes import Outcome, outcomes_of_recorded, outcomes_of_run
from mathlete.lab.recorded import RecordedProblem


def attempt(key: str, index: int, answer: str | None, tokens: int = 100, seconds: float = 2.0) -> Attempt:
    return Attempt(f"{key}#{index}", key, index, "code", index, 0.8, answer, None, (), tokens, seconds)


def record(key: str, answer: str | None, gold: str | None = "1", tokens: int = 100) -> ProblemRecord:
    chosen = None if answer is None else Selection(answer, "majority", 0.5)
    return ProblemRecord(
        Problem(key, f"What is {key}?"), (attempt(key, 0, answer, tokens),), chosen, gold=gold, group=key[0]
    )


def run(*records: ProblemRecord) -> RunRecord:
    return RunRecord(config={}, problems={item.problem.id: item for item in records})


def outcome(key: str, right: bool, tokens: int = 10, group: str | None = None) -> Outcome:
    return Outcome(key, f"What is {key}?", group or key, "1", "1" if right else "2", right, tokens, 1.0)


def test_four_problems_by_hand() -> None:
    first = run(record("a", "1"), record("b", "1"), record("c", "2"), record("d", "3"))
    second = run(record("a", "1", tokens=50), record("b", "7"), record("c", "1"), record("d", "4", tokens=150))
    compared = compare_runs(first, second)
    scores = compared.scores
    assert scores is not None
    assert (scores.num_problems, scores.num_groups) == (4, 4)
    assert (scores.first.value, scores.second.value, scores.difference.value) == (0.5, 0.5, 0.0)
    test = scores.mcnemar
    assert (test.both, test.only_first, test.only_second, test.neither, test.p_value) == (1, 1, 1, 1, 1.0)
    assert [(flip.problem_id, flip.change) for flip in compared.flips] == [
        ("b", "lost"),
        ("c", "gained"),
        ("d", "other"),
    ]
    assert (compared.tokens.first, compared.tokens.second) == (400, 400)
    assert compared.tokens.ratio is not None and compared.tokens.ratio.value == 1
    assert compared.tokens.ratio.low < 1 < compared.tokens.ratio.high
    assert "luck" in compared.verdict
    data = json.loads(json.dumps(compared.as_dict()))
    assert data["flips"][0] == {"problem_id": "b", "change": "lost", "gold": "1", "first": "1", "second": "7"}


def test_a_run_against_itself_differs_in_nothing() -> None:
    one = run(*(record(f"{number}x", str(number % 3)) for number in range(9)))
    compared = compare_runs(one, one)
    assert compared.scores is not None and compared.tokens.ratio is not None
    assert (compared.scores.difference.low, compared.scores.difference.high) == (0, 0)
    assert compared.scores.detectable is None and compared.flips == ()
    assert (compared.tokens.ratio.low, compared.tokens.ratio.high) == pytest.approx((1, 1))
    assert compared.verdict == "Both were right on the same problems."


def test_what_cannot_be_compared_is_told() -> None:
    first = run(record("a", "1"), record("b", "1"), record("c", "1"), record("d", "1"))
    other = record("b", "1")
    changed = replace(other, problem=Problem("b", "Something else?"))
    second = run(record("a", "1"), changed, record("c", "1", gold="5"), record("e", "1"))
    compared = compare_runs(first, second)
    assert compared.num_problems == 1
    reasons = {item.problem_id: item.reason for item in compared.left_out}
    assert reasons == {
        "b": "its text is another one in the second",
        "c": "its right answer is 1 in the first and 5 in the second",
        "d": "the second does not have it",
        "e": "the first does not have it",
    }


def test_the_same_text_under_another_id_is_the_same_problem() -> None:
    first = [outcome("a", True), outcome("b", False), outcome("c", True)]
    second = [replace(item, problem_id=f"other-{item.problem_id}") for item in first]
    compared = compare_outcomes(first, second)
    assert (compared.num_problems, compared.left_out) == (3, ())
    assert compare_outcomes(first, second, by_text=False).num_problems == 0
    twice = [*second, replace(second[0], problem_id="again")]
    compared = compare_outcomes(first, twice)
    assert compared.num_problems == 2, "a text that stands there twice names no problem"
    assert {item.problem_id for item in compared.left_out} == {"a", "other-a", "again"}


def test_a_right_answer_may_be_spelled_in_two_ways() -> None:
    spelled = replace(outcome("a", True), gold="2,125")
    for gold, num_problems in (("2125", 1), ("2126", 0), ("x + 1", 0)):
        compared = compare_outcomes([spelled], [replace(spelled, gold=gold)])
        assert (compared.num_problems, len(compared.left_out)) == (num_problems, 1 - num_problems)


def test_runs_without_labels_still_tell_answers_and_cost() -> None:
    compared = compare_runs(run(record("a", "1", gold=None)), run(record("a", "2", gold=None, tokens=300)))
    assert compared.scores is None and compared.tokens.ratio is not None
    assert compared.tokens.ratio.value == 3
    assert [flip.change for flip in compared.flips] == ["other"]
    assert compared.verdict == "No right answer is known; 1 of 1 answers differ."
    assert compare_runs(run(), run()).verdict == "The two have no problem in common."


def test_a_problem_without_an_answer_is_wrong_and_a_fallback_is_no_answer() -> None:
    unanswered, fallen = record("a", None), replace(record("b", "0"), selection=Selection("0", FALLBACK, 0.0))
    outcomes = outcomes_of_run(run(unanswered, fallen, record("c", "0", gold=None)))
    assert [(item.answer, item.right) for item in outcomes] == [(None, False), (None, False), ("0", None)]


def test_recorded_attempts_are_answered_by_a_plain_vote() -> None:
    answers = ["x^2", "x^2", "3", None]
    attempts = tuple(attempt("p", index, answer) for index, answer in enumerate(answers))
    check = replace(attempt("p", 4, None), pillar="sympy_check")
    item = RecordedProblem(Problem("p", "?"), "x*x", "g", attempts, (True, True, False, False), (check,))
    silent = replace(item, problem=Problem("q", "??"), attempts=attempts[3:], correct=(False,), checks=())
    told, nothing = outcomes_of_recorded([item, silent])
    assert (told.answer, told.right, told.num_tokens, told.seconds, told.group) == ("x^2", True, 500, 10.0, "g")
    assert (nothing.answer, nothing.right) == (None, False)


def test_a_large_difference_is_told_and_a_lucky_handful_is_not() -> None:
    keys = [f"p{number}" for number in range(40)]
    worse = [outcome(key, number < 10) for number, key in enumerate(keys)]
    better = [outcome(key, number < 22) for number, key in enumerate(keys)]
    handful = [outcome(key, number < 14) for number, key in enumerate(keys)]
    assert compare_outcomes(worse, better).verdict.startswith("The second is better (12 gained, 0 lost")
    assert compare_outcomes(better, worse).verdict.startswith("The first is better")
    compared = compare_outcomes(worse, handful)
    assert compared.scores is not None and compared.scores.difference.low > 0
    assert compared.scores.mcnemar.p_value == 0.125
    assert compared.verdict.startswith("No difference that luck would not explain")
    compared = compare_outcomes([outcome("p", False), outcome("q", False)], [outcome("p", True), outcome("q", True)])
    assert compared.verdict == "No difference that luck would not explain (2 gained, 0 lost of 2: +1.000, exact p 0.5)."
    assert compare_outcomes(worse, worse).verdict == "Both were right on the same problems."


def test_variants_of_one_problem_count_as_one() -> None:
    first = [outcome(f"v{number}", False, group="same") for number in range(12)] + [outcome("x", True)]
    second = [outcome(f"v{number}", True, group="same") for number in range(12)] + [outcome("x", True)]
    compared = compare_outcomes(first, second)
    assert compared.scores is not None
    assert (compared.scores.num_problems, compared.scores.num_groups) == (13, 2)
    assert compared.scores.difference.low == 0 and not compared.verdict.startswith("The second is better")


def test_two_equally_good_ways_are_rarely_told_apart() -> None:
    rng = random.Random(8)
    told = 0
    for _ in range(30):
        chances = [rng.random() for _ in range(50)]
        first, second = ([outcome(f"p{i}", rng.random() < chance) for i, chance in enumerate(chances)] for _ in "ab")
        told += "better" in compare_outcomes(first, second).verdict
    assert told <= 4
