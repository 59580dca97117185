"""Exact test of whether two ways of answering the same problems are equally often right.

Knows pairs of right or wrong. Does not know problems, groups or how large a difference matters: the test takes problems
as independent, so where problems are variants of each other read the bootstrap by group beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two ways on the same problems; only problems on which they differ say which one is better.

    Attributes:
        both: problems that both got right.
        only_first: those that only the first got right.
        only_second: those that only the second got right.
        neither: those that neither got right.
        p_value: two-sided, exact: the chance, were both equally good, of a split of the differing problems at least
            as uneven as this one (McNemar 1947; a binomial with p = 1/2). Never too small, often too large.
        mid_p: the same with half the chance of just this split taken off on each side (Lancaster 1961; Fagerland,
            Lydersen & Laake 2013): close to its level for few problems, where `p_value` is too careful.
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float
    mid_p: float


def mcnemar_test(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """Compare two ways, given of each problem whether each got it right.

    Raises:
        ValueError: not the same number of problems, or none.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"a paired test needs the same problems twice, not {len(first)} and {len(second)}")
    pairs = [(bool(one), bool(two)) for one, two in zip(first, second, strict=True)]
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    return McNemar(
        both=pairs.count((True, True)),
        only_first=only_first,
        only_second=only_second,
        neither=pairs.count((False, False)),
        p_value=exact_p(only_first, only_second),
        mid_p=mid_p(only_first, only_second),
    )


def exact_p(only_first: int, only_second: int) -> float:
    """min(1, 2 P(X <= the smaller count)), X binomial of all differing problems with p = 1/2; 1 without any."""
    tail, _, whole = _tail(only_first, only_second)
    return min(1.0, 2 * tail / whole)


def mid_p(only_first: int, only_second: int) -> float:
    """The exact p less the chance of just this split; of an even split, 1 less half of it."""
    tail, point, whole = _tail(only_first, only_second)
    return (2 * tail - point) / whole if only_first != only_second else 1 - point / (2 * whole)


def _tail(only_first: int, only_second: int) -> tuple[int, int, int]:
    """Numerators of P(X <= smaller) and P(X = smaller), and their denominator 2^n: whole numbers, so exact."""
    number, smaller = only_first + only_second, min(only_first, only_second)
    ways, tail = 1, 1
    for count in range(1, smaller + 1):
        ways = ways * (number - count + 1) // count
        tail += ways
    return tail, ways, 1 << number
