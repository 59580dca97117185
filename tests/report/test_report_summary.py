from dataclasses import replace

import pytest
from sample_run import finished_run_without_gold, sample_run

from mathlete.core.record import RunRecord
from mathlete.report.summary import same_answer, summarise_run


def test_every_state_of_the_sample() -> None:
    summary = summarise_run(sample_run())
    assert [p.state for p in summary.problems] == ["right", "wrong", "wrong", "right", "running", "waiting"]
    assert [p.number for p in summary.problems] == [1, 2, 3, 4, 5, 6]
    assert [p.gold_votes for p in summary.problems] == [4, 2, 0, 4, None, None]
    assert [p.lost_at_selection for p in summary.problems] == [False, True, False, False, False, False]
    assert (summary.num_answered, summary.num_graded, summary.num_right, summary.num_in_pool) == (3, 4, 2, 3)
    assert (summary.num_attempts, summary.num_voting) == (22, 16)


def test_votes_and_silent_attempts() -> None:
    problem = summarise_run(sample_run()).problems[1]
    assert problem.votes == {"571": 3, "570": 2, "286": 1}
    assert problem.silent == {"no_answer": 1, "length": 1}


def test_tokens_include_unfinished_attempts() -> None:
    problem = summarise_run(sample_run()).problems[4]
    begun = problem.record.unfinished["math500-speed#1"][0].num_tokens
    assert begun > 0 and problem.num_tokens == problem.record.attempts[0].num_tokens + begun


def test_times() -> None:
    summary = summarise_run(sample_run())
    assert summary.problems[0].elapsed_s == pytest.approx(9.2)
    assert summary.problems[4].elapsed_s == pytest.approx(74.2 - 66.8)  # still open at the last event
    assert summary.problems[5].elapsed_s is None
    assert summary.tokens_per_s == pytest.approx(summary.num_tokens / 74.2)


def test_without_gold_nothing_is_right_or_wrong() -> None:
    summary = summarise_run(finished_run_without_gold())
    assert [p.state for p in summary.problems] == ["answered", "answered", "fallback", "answered"]
    assert summary.num_graded == 0 and summary.problems[0].gold_votes is None


def test_a_fallback_that_happens_to_be_right_scores_but_is_not_an_answer() -> None:
    run = sample_run()
    lucky = replace(run.problems["math500-polynomial"], gold="0")
    summary = summarise_run(replace(run, problems={"p": lucky}))
    assert (summary.num_right, summary.num_answered, summary.num_in_pool) == (1, 0, 0)


def test_an_empty_run() -> None:
    summary = summarise_run(RunRecord(config={}, problems={}))
    assert summary.problems == () and summary.tokens_per_s is None


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("7", "7", True),
        ("007", " 7 ", True),
        ("-5", "-5", True),
        ("7", "8", False),
        ("7.0", "7", False),
        ("9" * 5_000, "9" * 5_001, False),
        ("<b>", "<b>", True),
    ],
)
def test_same_answer(left: str, right: str, same: bool) -> None:
    assert same_answer(left, right) is same
