import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.core.selection import Selection
from mathlete.lab.metrics import (
    AttemptRow,
    evaluate_metrics,
    evaluate_run,
    majority_score,
    pass_at_k,
    wilson_interval,
)

TRACES = Path(__file__).parents[3] / "shared" / "traces"


def row(
    key: str, answers: list[str | None], gold: str, *, selected: bool = False, group: str | None = None
) -> AttemptRow:
    return AttemptRow(key, group or key, tuple(answers), tuple(a == gold for a in answers), selected)


@pytest.mark.parametrize(
    ("num_samples", "num_correct", "k", "chance"),
    [
        (4, 1, 1, 1 / 4),
        (4, 1, 2, 1 / 2),
        (4, 2, 2, 5 / 6),
        (8, 3, 4, 1 - 5 / 70),
        (4, 0, 4, 0),
        (4, 1, 4, 1),
        (1, 1, 1, 1),
    ],
)
def test_pass_at_k_by_hand(num_samples: int, num_correct: int, k: int, chance: float) -> None:
    assert pass_at_k(num_samples, num_correct, k) == pytest.approx(chance)


@pytest.mark.parametrize(("num_samples", "num_correct"), [(6, 0), (6, 2), (6, 5)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(num_samples: int, num_correct: int) -> None:
    correct = [True] * num_correct + [False] * (num_samples - num_correct)
    for k in range(1, num_samples + 1):
        subsets = list(itertools.combinations(correct, k))
        assert pass_at_k(num_samples, num_correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize(("num_samples", "num_correct", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 5), (4, 1, 0), (0, 0, 1)])
def test_pass_at_k_outside_its_domain(num_samples: int, num_correct: int, k: int) -> None:
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(num_samples, num_correct, k)


@pytest.mark.parametrize(
    ("answers", "with_null", "without_null"),
    [
        (["1", "1", "2"], 1, 1),
        (["1", "2", "2"], 0, 0),
        (["1", "2"], 1 / 2, 1 / 2),
        (["1", "2", "3", "1", "2", "3"], 1 / 3, 1 / 3),
        (["1", None, None], 0, 1),
        (["1", None], 1 / 2, 1),
        ([None, None], 0, 0),
        ([], 0, 0),
    ],
)
def test_a_majority_with_fractional_ties(answers: list[str | None], with_null: float, without_null: float) -> None:
    correct = [answer == "1" for answer in answers]
    assert majority_score(answers, correct, count_null=True) == pytest.approx(with_null)
    assert majority_score(answers, correct) == pytest.approx(without_null)


@pytest.mark.parametrize(
    ("num_right", "num_total", "low", "high"),
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (5, 10, 0.23659, 0.76341), (81, 263, 0.25529, 0.36620)],
)
def test_wilson_intervals(num_right: int, num_total: int, low: float, high: float) -> None:
    estimate = wilson_interval(num_right, num_total)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
        (num_right / num_total, low, high), abs=1e-4
    )  # the last row: Newcombe 1998, table I


def test_a_proportion_of_nothing() -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(0, 0)


def test_the_figures_of_three_problems_by_hand() -> None:
    rows = [
        row("a", ["1", "1", "2", "3"], "1", selected=True),
        row("b", ["5", "6", None, None], "6"),
        row("c", ["7", "8"], "9"),
    ]
    metrics = evaluate_metrics(rows, elapsed_s=10.0)
    assert metrics.accuracy.value == pytest.approx(1 / 3)
    assert metrics.accuracy.method == "wilson"
    assert metrics.pass_at_1.value == pytest.approx((1 / 2 + 1 / 4 + 0) / 3)
    assert metrics.majority.value == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert [item.k for item in metrics.pass_at] == [1, 2, 4]
    assert [item.num_short for item in metrics.pass_at] == [0, 0, 1]
    assert [item.estimate.value for item in metrics.pass_at] == pytest.approx([1 / 4, (5 / 6 + 1 / 2) / 3, 2 / 3])
    assert metrics.no_answer == pytest.approx(2 / 10)
    assert (metrics.tokens_per_attempt, metrics.seconds_per_attempt, metrics.tokens_per_s) == (None, None, None)
    assert json.loads(json.dumps(metrics.as_dict()))["pass_at"][2]["k"] == 4
    assert any("lower bound: 1 problems" in line for line in metrics.lines())


def test_variants_of_a_problem_are_resampled_together() -> None:
    rows = [row(str(i), ["1"], "1", selected=True, group="g") for i in range(5)]
    metrics = evaluate_metrics([*rows, row("x", ["1"], "2", group="h")])
    assert metrics.accuracy.method == "bootstrap"
    assert (metrics.accuracy.low, metrics.accuracy.high) == (0.0, 1.0)


def test_rows_without_attempts_count_as_wrong() -> None:
    metrics = evaluate_metrics([row("a", [], "1"), row("b", ["1"], "1", selected=True)])
    assert metrics.pass_at_1.value == metrics.majority.value == metrics.accuracy.value == 0.5
    assert evaluate_metrics([row("a", [], "1")]).pass_at[0].estimate.value == 0
    with pytest.raises(ValueError, match="at least one problem"):
        evaluate_metrics([])


def test_a_row_must_fit_together() -> None:
    with pytest.raises(ValueError, match="2 entries for 1 answers"):
        AttemptRow("a", "a", ("1",), (True, False))


def attempt(index: int, answer: str | None, failure: str | None = None) -> Attempt:
    return Attempt(
        id=f"p#{index}", problem_id="p", index=index, pillar="code", seed=index, temperature=0.8, answer=answer,
        answer_source=None, turns=(), num_tokens=100, elapsed_s=2.0, failure=failure,  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_figures_of_a_run() -> None:
    attempts = (attempt(0, "42"), attempt(1, "41"), attempt(2, None, "length"), attempt(3, None, "stopped"))
    labelled = ProblemRecord(
        Problem(id="p", statement="?"), attempts, Selection(answer="42", rule="majority", confidence=0.5), gold="42"
    )
    run = RunRecord(config={}, problems={"p": labelled}, elapsed_s=10.0)
    metrics = evaluate_run(run)
    assert metrics is not None
    assert (metrics.num_problems, metrics.num_attempts) == (1, 3)  # the aborted attempt had no chance
    assert metrics.accuracy.value == 1
    assert metrics.pass_at_1.value == pytest.approx(1 / 3)
    assert metrics.majority.value == 0.5
    assert (metrics.tokens_per_attempt, metrics.seconds_per_attempt, metrics.tokens_per_s) == (100, 2, 30)


def test_checks_of_answers_are_no_attempts() -> None:
    check = replace(attempt(3, None, "tool_error"), pillar="sympy_check", num_tokens=9_000)
    attempts = (attempt(0, "42"), attempt(1, "41"), check, attempt(2, None, "out_of_time"))
    selection = Selection(answer="42", rule="triad", confidence=0.5)
    figures = []
    for pool in (attempts, tuple(item for item in attempts if item is not check)):
        record = ProblemRecord(Problem(id="p", statement="?"), pool, selection, gold="42")
        figures.append(evaluate_run(RunRecord(config={}, problems={"p": record}, elapsed_s=10.0)))
    assert figures[0] == figures[1] and figures[0] is not None
    assert (figures[0].num_attempts, figures[0].no_answer) == (3, pytest.approx(1 / 3))


def test_attempts_that_the_clock_cut_count_unless_a_later_session_replaced_them() -> None:
    cut, made = attempt(0, None, "out_of_time"), attempt(1, "42")
    counted = {}
    for name, attempts in {"replaced": (cut, made), "not replaced": (made, cut)}.items():
        record = ProblemRecord(Problem(id="p", statement="?"), attempts, gold="42")
        metrics = evaluate_run(RunRecord(config={}, problems={"p": record}))
        assert metrics is not None
        counted[name] = metrics.num_attempts
    assert counted == {"replaced": 1, "not replaced": 2}


def test_a_run_without_golds_has_no_figures() -> None:
    record = ProblemRecord(Problem(id="p", statement="?"), (attempt(0, "42"),))
    assert evaluate_run(RunRecord(config={}, problems={"p": record})) is None


@pytest.mark.shared
def test_the_figures_of_a_recorded_pool() -> None:
    path = TRACES / "zeroeval_math_l5.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    rows = []
    for line in path.read_text().splitlines():
        record = json.loads(line)
        answers = tuple(a["answer"] for a in record["attempts"])
        correct = tuple(a["correct"] for a in record["attempts"])
        rows.append(AttemptRow(record["problem_id"], record["group"], answers, correct))
    metrics = evaluate_metrics(rows)
    majority = metrics.majority
    assert majority.value == pytest.approx(0.723, abs=5e-4)
    assert (majority.low, majority.high) == pytest.approx((0.690, 0.756), abs=0.003)  # another stream of draws
    assert metrics.pass_at_1.value == pytest.approx(0.397, abs=5e-4)
    oracle = sum(any(r.correct) for r in rows) / len(rows)
    assert oracle == pytest.approx(0.969, abs=5e-4)
    assert metrics.pass_at[-1].k == 32
    assert metrics.pass_at[-1].estimate.value < oracle
