"""The score of two runs: 1, 0.5 or 0 points a problem."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.lab.two_runs import right_ids, two_run_points, two_run_score, two_run_score_of_right

GOLDS = {"a": "7", "b": "12", "c": "0"}


def test_points_of_a_problem() -> None:
    told = {pair: two_run_points(*pair) for pair in itertools.product((True, False), repeat=2)}
    assert told == {(True, True): 1.0, (True, False): 0.5, (False, True): 0.5, (False, False): 0.0}


@pytest.mark.parametrize(
    ("first", "second", "score"),
    [
        (GOLDS, GOLDS, 3.0),
        (GOLDS, {}, 1.5),
        ({"a": "7", "b": "1"}, {"a": "7", "b": "12"}, 1.5),
        ({"a": "8"}, {"b": "13"}, 0.0),
        ({"a": "007"}, {"a": "7", "z": "7"}, 1.0),
    ],
)
def test_scores(first: dict[str, str], second: dict[str, str], score: float) -> None:
    assert two_run_score(first, second, GOLDS) == score == two_run_score(second, first, GOLDS)


def test_answers_are_compared_as_integers_and_other_problems_do_not_count() -> None:
    assert right_ids({"a": "07", "b": "11", "z": "0"}, GOLDS) == {"a"}


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_the_slow_twin_goes_problem_by_problem(first: set[int], second: set[int]) -> None:
    one, other = {str(i) for i in first}, {str(i) for i in second}
    slow = sum(1.0 if i in first and i in second else 0.5 if i in first or i in second else 0.0 for i in range(10))
    assert two_run_score_of_right(one, other) == slow
