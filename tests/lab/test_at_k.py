"""Figures at k of n attempts: against all subsets, and against values by hand."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from mathlete.lab.at_k import majority_at_k, majority_score, pass_at_k


def by_all_subsets(answers: list[str | None], correct: list[bool], k: int) -> float:
    """The slow twin: the vote of each subset of k."""
    scores = [
        majority_score([answers[i] for i in places], [correct[i] for i in places])
        for places in itertools.combinations(range(len(answers)), k)
    ]
    return sum(scores) / len(scores)


@pytest.mark.parametrize("seed", range(12))
def test_majority_at_k_is_the_mean_over_all_draws(seed: int) -> None:
    rng = random.Random(seed)
    number = rng.randint(1, 10)
    answers = [rng.choice(["1", "1", "2", "3", "4", None]) for _ in range(number)]
    right = rng.choice([{"1"}, {"2", "3"}, {"1", "4"}, set()])
    correct = [answer in right for answer in answers]
    for k in range(1, number + 1):
        assert majority_at_k(answers, correct, k) == pytest.approx(by_all_subsets(answers, correct, k), abs=1e-12)


def test_majority_at_k_by_hand() -> None:
    answers, correct = ["1", "1", "2", "3"], [True, True, False, False]
    assert majority_at_k(answers, correct, 1) == pytest.approx(1 / 2)
    # of 6 pairs: 11 wins; four pairs with one 1 are ties; 23 loses
    assert majority_at_k(answers, correct, 2) == pytest.approx((1 + 4 / 2) / 6)
    # of 4 triples: 112 and 113 win; 123 twice, a tie of three
    assert majority_at_k(answers, correct, 3) == pytest.approx((2 + 2 / 3) / 4)
    assert majority_at_k(answers, correct, 4) == 1


def test_one_attempt_is_a_vote_of_one_and_silence_is_none() -> None:
    answers, correct = ["1", None, "2", "1", None], [True, False, False, True, False]
    assert majority_at_k(answers, correct, 1) == pytest.approx(pass_at_k(5, 2, 1))
    assert majority_at_k([None, None], [False, False], 2) == 0


def test_a_large_pool_stays_between_nothing_and_one() -> None:
    answers: list[str | None] = ["a"] * 40 + ["b"] * 15 + [str(i) for i in range(9)]
    correct = [answer == "a" for answer in answers]
    curve = [majority_at_k(answers, correct, k) for k in (1, 2, 4, 8, 16, 32, 64)]
    assert curve == sorted(curve) and curve[0] == pytest.approx(40 / 64) and curve[-1] == pytest.approx(1)


def test_more_ways_than_a_float_counts() -> None:
    answers: list[str | None] = ["a"] * 1_250 + ["b"] * 1_150
    correct = [answer == "a" for answer in answers]
    drawn = sum(math.comb(1_250, votes) * math.comb(1_150, 1_001 - votes) for votes in range(501, 1_002))
    assert majority_at_k(answers, correct, 1_001) == pytest.approx(drawn / math.comb(2_400, 1_001), abs=1e-9)
    assert majority_at_k(answers, correct, 2_400) == 1


@pytest.mark.parametrize("k", [0, 4])
def test_majority_at_k_outside_its_domain(k: int) -> None:
    with pytest.raises(ValueError, match="not defined"):
        majority_at_k(["1", "2", "3"], [True, False, False], k)
