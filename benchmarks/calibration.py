"""How well stated chances of being right agree with what was right. Pure arithmetic over (chance, right) pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions with a chance in [low, high).

    Attributes:
        low: lower end.
        high: upper end; the last bin has 1 in it.
        count: predictions.
        stated: their mean chance.
        right: the share of them that was right.
    """

    low: float
    high: float
    count: int
    stated: float
    right: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Figures of a set of predictions.

    Attributes:
        count: predictions.
        ece: expected calibration error: mean |stated - right| of ten equal bins, weighted by their counts.
        brier: mean squared difference of chance and truth.
        bins: those that are not empty.
    """

    count: int
    ece: float
    brier: float
    bins: tuple[Bin, ...]


def calibration(chances: Sequence[float], right: Sequence[float]) -> Calibration:
    """The figures; `right` may lie between 0 and 1 where equally likely answers share the choice.

    Raises:
        ValueError: no predictions, or not one truth for each.
    """
    if not chances or len(chances) != len(right):
        raise ValueError("calibration needs a truth for each prediction, and at least one")
    parts: dict[int, list[tuple[float, float]]] = {}
    for chance, truth in zip(chances, right, strict=True):
        parts.setdefault(min(NUM_BINS - 1, int(chance * NUM_BINS)), []).append((chance, truth))
    bins = []
    for index, part in sorted(parts.items()):
        stated, truth = (math.fsum(column) / len(part) for column in zip(*part, strict=True))
        bins.append(Bin(index / NUM_BINS, (index + 1) / NUM_BINS, len(part), stated, truth))
    total = len(chances)
    return Calibration(
        count=total,
        ece=math.fsum(item.count * abs(item.stated - item.right) for item in bins) / total,
        brier=math.fsum((chance - truth) ** 2 for chance, truth in zip(chances, right, strict=True)) / total,
        bins=tuple(bins),
    )
