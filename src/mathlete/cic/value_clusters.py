"""Answers grouped by their value: those within 5 % of each other, by single linkage. Pure.

d(a, b) = |a - b| / max(|a|, |b|) (SPEC part B). So zero is at distance 1 from everything but zero, and numbers of
different sign are never close. An answer that is no number is close to the same text only. In a contest of exact
integers a near miss is a wrong answer: clusters tell where the votes lie, not which of them is right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from mathlete.cic.answer_values import answer_value
from mathlete.cic.disorder import squared_variation

PROXIMITY = Fraction(1, 20)


@dataclass(frozen=True, slots=True)
class ValueCluster:
    """Answers close to each other.

    Attributes:
        indices: places of its members in the list of answers, ascending.
        values: of its members, ascending; empty when they are no numbers.
        tightness: clamp(1 - sd / |mean|, 0, 1), sd with n - 1; 1 for a single member or one text.
    """

    indices: tuple[int, ...]
    values: tuple[Fraction, ...]
    tightness: float

    @property
    def size(self) -> int:
        """Number of its members."""
        return len(self.indices)

    @property
    def score(self) -> float:
        """What clusters are ranked by: size * sqrt(tightness)."""
        return self.size * math.sqrt(self.tightness)


def value_clusters(answers: Sequence[str], proximity: Fraction = PROXIMITY) -> tuple[ValueCluster, ...]:
    """The clusters of a list of answers, best score first, then larger ones, then by first member. O(n log n).

    Args:
        answers: texts; equal ones are separate members.
        proximity: two numbers are linked when their distance is less than this; in (0, 1).
    """
    return _clusters_of(tuple(answers), proximity)


@lru_cache(maxsize=4)  # several rules ask for the clusters of one pool
def _clusters_of(answers: tuple[str, ...], proximity: Fraction) -> tuple[ValueCluster, ...]:
    places: dict[str, list[int]] = {}
    for index, answer in enumerate(answers):
        places.setdefault(answer, []).append(index)
    numbers = [(value, found) for answer, found in places.items() if (value := answer_value(answer)) is not None]
    clusters = [_cluster(members) for members in _number_groups(numbers, proximity)]
    clusters += [
        ValueCluster(tuple(found), (), 1.0) for answer, found in places.items() if answer_value(answer) is None
    ]
    return tuple(sorted(clusters, key=lambda c: (-c.score, -c.size, c.indices)))


def is_close(a: Fraction, b: Fraction, proximity: Fraction = PROXIMITY) -> bool:
    """Whether d(a, b) < proximity."""
    return a == b or abs(a - b) < proximity * max(abs(a), abs(b))


def _number_groups(
    numbers: Sequence[tuple[Fraction, list[int]]], proximity: Fraction
) -> Iterator[list[tuple[Fraction, list[int]]]]:
    """Values of each cluster, ascending, each with the places where it stands.

    In ascending order neighbours are the closest of any two, so a cluster ends where neighbours are not close.
    """
    members: list[tuple[Fraction, list[int]]] = []
    for value, places in sorted(numbers):
        if members and not is_close(members[-1][0], value, proximity):
            yield members
            members = []
        members.append((value, places))
    if members:
        yield members


def _cluster(members: Sequence[tuple[Fraction, list[int]]]) -> ValueCluster:
    values = tuple(value for value, places in members for _ in places)
    return ValueCluster(tuple(sorted(index for _, places in members for index in places)), values, _tightness(values))


def _tightness(values: Sequence[Fraction]) -> float:
    if values[0] == values[-1]:
        return 1.0
    variation = squared_variation(values)  # of one sign, so their mean is not 0
    return max(0.0, 1 - math.sqrt(variation)) if variation is not None and variation < 1 else 0.0


def refine_basin(values: Sequence[Fraction]) -> Fraction:
    """(median + trimmed mean) / 2, a quarter of the values cut off at each end (at least one, if any stay).

    For real-valued quantities. Of integers it makes numbers that nobody voted for: the strategy's own 500 cases were
    right in 14.8 % after refinement, 38.4 % by majority and 45.4 % by the mode of the same cluster (SPEC part B).
    """
    ordered = sorted(values)
    n = len(ordered)
    cut = max(1, n // 4)
    kept = ordered[cut:-cut] if n > 2 * cut else ordered
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return (median + sum(kept, Fraction(0)) / len(kept)) / 2
