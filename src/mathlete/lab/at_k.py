"""Figures at k of n attempts, without bias: pass@k, and what a plain vote of k gets right.

Knows which attempts gave the same answer and which were right. Does not know problems, files or models. Each figure at
k is the mean over all ways of drawing k of the n attempts, computed and not drawn.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_MOST_WAYS = 10**300  # that a float can count


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased chance that one of `k` attempts drawn from `num_samples` is right (Chen et al. 2021, eq. 1).

    Raises:
        ValueError: unless 0 <= num_correct <= num_samples and 1 <= k <= num_samples.
    """
    if not (0 <= num_correct <= num_samples and 1 <= k <= num_samples):
        raise ValueError(f"pass@{k} of {num_correct} right among {num_samples} is not defined")
    return 1 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def majority_score(answers: Sequence[str | None], correct: Sequence[bool], *, count_null: bool = False) -> float:
    """Chance that a plain vote is right when ties are broken at random; 0 when nobody votes.

    Args:
        answers: of each attempt.
        correct: of each attempt, whether its answer is right.
        count_null: let attempts without an answer vote for "no answer".
    """
    votes = Counter(answer for answer in answers if answer is not None or count_null)
    if not votes:
        return 0.0
    most = max(votes.values())
    leading = [
        right for answer, right in zip(answers, correct, strict=True) if votes[answer] == most
    ]  # each leader has `most` entries, so the mean over entries is the mean over leaders
    return sum(leading) / len(leading)


def majority_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """Unbiased chance that a plain vote of `k` attempts is right: the mean of `majority_score` over all draws of k.

    Attempts that gave the same answer must be right or wrong together. Exact up to rounding, by counting.

    Raises:
        ValueError: unless 1 <= k <= the number of attempts.
    """
    if not 1 <= k <= len(answers):
        raise ValueError(f"majority@{k} of {len(answers)} attempts is not defined")
    votes = Counter(answer for answer in answers if answer is not None)
    right = {answer for answer, is_right in zip(answers, correct, strict=True) if is_right and answer is not None}
    if k == len(answers):
        return majority_score(answers, correct)
    right_sizes = tuple(sorted(votes[answer] for answer in right))
    wrong_sizes = tuple(sorted(votes[answer] for answer in votes.keys() - right))
    return _chance_right(right_sizes, wrong_sizes, len(answers) - votes.total(), k)


@lru_cache(maxsize=1 << 15)
def _chance_right(right: tuple[int, ...], wrong: tuple[int, ...], num_silent: int, k: int) -> float:
    """Sum over right answers and their numbers of votes t of P(leads with t) E[1 / leaders | that].

    Given t, every other answer contributes its ways to have fewer than t votes, or exactly t and a factor y: the
    coefficient of z^(k - t) is a polynomial in y whose powers count the other leaders, and 1 / leaders is the integral
    of y^(leaders - 1) over [0, 1], which Gauss-Legendre nodes give exactly.
    """
    sizes = Counter([*right, *wrong])
    size_of_pool = sum(right) + sum(wrong) + num_silent
    # Ways too many for a float become chances: those of t votes of `size`, times share^t (1 - share)^(size - t).
    share = k / size_of_pool if math.comb(size_of_pool, k) > _MOST_WAYS else None
    total = 0.0
    for size, number in Counter(right).items():
        others = sizes - Counter([size])
        for votes in range(1, min(size, k) + 1):
            total += number * _ways(size, votes, share) * _weighted_ways(others, num_silent, votes, k - votes, share)
    return min(1.0, total / _ways(size_of_pool, k, share))


def _weighted_ways(others: Counter[int], num_silent: int, votes: int, num_left: int, share: float | None) -> float:
    """Ways to draw `num_left` attempts so that no other answer has more than `votes`, each way over its leaders."""
    most_ties = num_left // votes
    ties, weights = _nodes(most_ties // 2 + 1)
    num_free = num_silent + sum(size * number for size, number in others.items() if size < votes)
    # Of answers too rare to reach `votes`, and silence.
    ways = np.tile(_binomials(num_free, num_left, share), (len(ties), 1))
    for size, number in others.items():
        if size >= votes:
            one = np.tile(_binomials(size, min(votes, num_left), share), (len(ties), 1))
            if votes <= num_left:
                one[:, votes] *= ties
            for _ in range(number):
                ways = _product(ways, one)
    return float(ways[:, num_left] @ weights) / 2


@lru_cache(maxsize=256)
def _nodes(number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre nodes moved from [-1, 1] to [0, 1], and their weights on [-1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(number)
    return (nodes + 1) / 2, weights


@lru_cache(maxsize=1 << 12)
def _binomials(size: int, highest: int, share: float | None) -> NDArray[np.float64]:
    return np.array([_ways(size, number, share) for number in range(highest + 1)], np.float64)


def _ways(size: int, number: int, share: float | None) -> float:
    """Ways to draw `number` of `size`; with a share, the chance that just so many come, each with that chance."""
    ways = math.comb(size, number)
    if share is None or not ways:
        return ways
    return math.exp(math.log(ways) + number * math.log(share) + (size - number) * math.log1p(-share))


def _product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row by row the product of two polynomials, cut at the length of the left one."""
    result = np.zeros_like(left)
    for power in range(right.shape[1]):
        result[:, power:] += left[:, : left.shape[1] - power] * right[:, power : power + 1]
    return result
