"""How well stated chances of being right agree with what was right.

Pure arithmetic over (chance, right) pairs. Does not know where the chances come from, nor how to mend them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mathlete.lab.bootstrap import Estimate, wilson_interval

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions whose chances lie together.

    Attributes:
        low: lower end: of the interval for bins of equal width, the smallest chance for bins of equal mass.
        high: upper end, likewise. Chances lie in [low, high); those of 1 are in the last bin of equal width, and
            a bin of equal mass has its largest chance in it.
        count: predictions.
        stated: their mean chance.
        right: the share of them that was right.
    """

    low: float
    high: float
    count: int
    stated: float
    right: float

    @property
    def interval(self) -> Estimate:
        """`right` with Wilson's interval, as if the predictions were of independent problems."""
        return wilson_interval(min(self.right, 1.0) * self.count, self.count)


@dataclass(frozen=True, slots=True)
class BrierParts:
    """The Brier score taken apart (Murphy 1973, with the term of Stephenson et al. 2008 for what bins hide).

    brier = reliability - resolution + uncertainty + within_bins, exactly.

    Attributes:
        reliability: mean squared distance of a bin's stated chance and its share right; 0 is calibrated.
        resolution: how far the bins' shares lie from the share of all; large is good: the chances tell bins apart.
        uncertainty: variance of the truth, share (1 - share): what the problems are, not the prediction.
        within_bins: what is left because chances in one bin differ; 0 when they are equal.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Figures of a set of predictions.

    Attributes:
        count: predictions.
        ece: expected calibration error: mean |stated - right| of ten bins of equal width, weighted by their counts
            (Naeini et al. 2015). It is above 0 by chance alone; the fewer predictions, the more.
        ece_equal_mass: the same over ten bins of as many predictions each, which crowded chances do not spoil.
        brier: mean squared difference of chance and truth (Brier 1950).
        parts: what the Brier score is made of, over the bins of equal width.
        bins: of equal width, those that are not empty: the reliability curve.
        mass_bins: of equal mass.
    """

    count: int
    ece: float
    ece_equal_mass: float
    brier: float
    parts: BrierParts
    bins: tuple[Bin, ...]
    mass_bins: tuple[Bin, ...]


def calibration(chances: Sequence[float], right: Sequence[float], num_bins: int = NUM_BINS) -> Calibration:
    """The figures; `right` may lie between 0 and 1 where equally likely answers share the choice.

    Raises:
        ValueError: no predictions, not one truth for each, a chance or truth outside [0, 1], or no bins.
    """
    if not chances or len(chances) != len(right):
        raise ValueError("calibration needs a truth for each prediction, and at least one")
    if num_bins < 1 or not all(0 <= value <= 1 for values in (chances, right) for value in values):
        raise ValueError("calibration needs chances and truths in [0, 1], and at least one bin")
    pairs = list(zip(chances, right, strict=True))
    bins, mass_bins = tuple(_equal_width(pairs, num_bins)), tuple(_equal_mass(pairs, num_bins))
    brier = _mean([(chance - truth) ** 2 for chance, truth in pairs])
    return Calibration(
        count=len(pairs),
        ece=_expected_error(bins),
        ece_equal_mass=_expected_error(mass_bins),
        brier=brier,
        parts=_brier_parts(brier, right, bins),
        bins=bins,
        mass_bins=mass_bins,
    )


def _equal_width(pairs: Sequence[tuple[float, float]], num_bins: int) -> Iterator[Bin]:
    parts: dict[int, list[tuple[float, float]]] = {}
    for chance, truth in pairs:
        parts.setdefault(min(num_bins - 1, int(chance * num_bins)), []).append((chance, truth))
    for index, part in sorted(parts.items()):
        yield _bin(index / num_bins, (index + 1) / num_bins, part)


def _equal_mass(pairs: Sequence[tuple[float, float]], num_bins: int) -> Iterator[Bin]:
    """Predictions in order of chance, cut into parts whose sizes differ by 1 at most; equal chances stay together."""
    ordered = sorted(pairs)
    first = 0
    for index in range(num_bins):
        end = max(first, round((index + 1) * len(ordered) / num_bins))
        while first < end < len(ordered) and ordered[end][0] == ordered[end - 1][0]:
            end += 1
        if end > first:
            yield _bin(ordered[first][0], ordered[end - 1][0], ordered[first:end])
        first = end


def _bin(low: float, high: float, part: Sequence[tuple[float, float]]) -> Bin:
    stated, right = (math.fsum(column) / len(part) for column in zip(*part, strict=True))
    return Bin(low, high, len(part), stated, right)


def _expected_error(bins: Sequence[Bin]) -> float:
    return math.fsum(item.count * abs(item.stated - item.right) for item in bins) / sum(item.count for item in bins)


def _brier_parts(brier: float, right: Sequence[float], bins: Sequence[Bin]) -> BrierParts:
    share = _mean(right)
    reliability = math.fsum(item.count * (item.stated - item.right) ** 2 for item in bins) / len(right)
    resolution = math.fsum(item.count * (item.right - share) ** 2 for item in bins) / len(right)
    uncertainty = _mean([(truth - share) ** 2 for truth in right])
    return BrierParts(reliability, resolution, uncertainty, brier - reliability + resolution - uncertainty)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
