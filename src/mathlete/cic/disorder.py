"""How much a pool of answers disagrees: H as the strategy published it, and two true entropies. Pure.

The published H is a variance: it asks how far apart the numbers are, not how divided the votes. Of 10 answers
that are all different but close it says "ordered". The true ones ask how divided the votes are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import fmean

from mathlete.cic.answer_values import answer_value
from mathlete.cic.majority import Vote, certainty


def published_entropy(answers: Sequence[str]) -> float:
    """H = min(1, Var(a / |mean a|)), Var with n - 1, in [0, 1] (SPEC part B).

    Exact until the end, so no size of numbers overflows. Answers that are no numbers are left out; fewer than two
    numbers have no variance: 0. Numbers that are not all equal but have mean 0 are infinitely far apart: 1.
    """
    values = [value for value in map(answer_value, answers) if value is not None]
    if len(values) < 2 or all(value == values[0] for value in values):
        return 0.0
    variation = squared_variation(values)
    return 1.0 if variation is None or variation >= 1 else float(variation)


def squared_variation(values: Sequence[Fraction]) -> Fraction | None:
    """Var(a) / mean(a)^2 with n - 1, exactly; None when the mean is 0. For at least two values."""
    whole = math.lcm(*(value.denominator for value in values))  # the ratio does not change with the unit
    counts = Counter(value.numerator * (whole // value.denominator) for value in values)
    n, total = len(values), sum(value * count for value, count in counts.items())
    if total == 0:
        return None
    deviations = sum(count * (value * n - total) ** 2 for value, count in counts.items())  # times n^2
    return Fraction(deviations, (n - 1) * total**2)


def shannon_entropy(answers: Sequence[str]) -> float:
    """Entropy of the answer classes over log n, in [0, 1]: 0 for unanimity, 1 when all n answers differ."""
    return normalised_entropy(Counter(answers), len(answers))


def posterior_entropy(votes: Sequence[Vote]) -> float:
    """Entropy of the answers given the model's own confidences, over log n, in [0, 1].

    The chance of an answer is its share of the summed confidences, exp(-mean token entropy) of each attempt. One
    that does not tell has the mean confidence of the others; when none tells this is `shannon_entropy`.
    """
    told = [weight for weight in (certainty(vote.attempt) for vote in votes) if weight > 0]
    neutral = fmean(told) if told else 1.0
    weights: dict[str, float] = {}
    for answer, attempt in votes:
        weights[answer] = weights.get(answer, 0.0) + (certainty(attempt) or neutral)
    return normalised_entropy(weights, len(votes))


def normalised_entropy(weights: Mapping[str, float], num_votes: int) -> float:
    """-sum p ln p / ln n of non-negative weights; 0 for fewer than two votes."""
    total = math.fsum(weights.values())
    if num_votes < 2 or not total > 0:
        return 0.0
    shares = [weight / total for weight in weights.values() if weight > 0]
    return min(1.0, max(0.0, -math.fsum(p * math.log(p) for p in shares) / math.log(num_votes)))
