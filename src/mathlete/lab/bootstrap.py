"""Intervals for means over problems: the paired bootstrap by group, and Wilson's interval of a proportion.

Knows columns of numbers, one a problem, and which problems belong together. Does not know what the numbers mean.
Pure: the same columns and seed give the same figures. Glossary: a *group* is the set of problems that belong together
(variants of one problem), the unit of resampling; *paired* means that all columns see the same draws of groups, so
that a difference of two columns is resampled as the difference it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2_000
LEVEL = 0.95
_Z_95 = 1.959963984540054  # standard normal quantile of 0.975
_MAX_CELLS = 1 << 20  # of one chunk of draws: 8 MB for each array of them

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems and its 95 % interval.

    Attributes:
        value: the mean.
        low: lower end.
        high: upper end.
        method: "bootstrap" (by group, percentile) or "wilson" (a proportion of independent problems).
    """

    value: float
    low: float
    high: float
    method: str = "bootstrap"

    def __str__(self) -> str:
        """As in ".723 [.690, .756]"."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_estimates(
    columns: Mapping[str, Sequence[float] | Floats],
    groups: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = NUM_RESAMPLES,
) -> dict[str, Estimate]:
    """The mean of each column with a percentile interval; whole groups are drawn with replacement.

    Args:
        columns: by name, one value a problem.
        groups: of each problem.
        seed: of the resampling; all columns see the same draws, so their differences are paired.
        resamples: number of draws.

    Raises:
        ValueError: no problems, a column of another length than `groups`, or a value that is not finite.
    """
    drawn = resampled_means(columns, groups, seed=seed, resamples=resamples)
    return {name: percentile_estimate(math.fsum(values) / len(values), drawn[name]) for name, values in columns.items()}


def ratio_estimate(
    above: Sequence[float] | Floats,
    below: Sequence[float] | Floats,
    groups: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = NUM_RESAMPLES,
) -> Estimate | None:
    """sum(above) / sum(below), both drawn together; None unless sum(below) is positive.

    Draws in which the lower sum is not positive are left out.

    Raises:
        ValueError: as `bootstrap_estimates`.
    """
    drawn = resampled_means({"above": above, "below": below}, groups, seed=seed, resamples=resamples)
    whole = math.fsum(below)
    if not whole > 0:
        return None
    positive = drawn["below"] > 0
    return percentile_estimate(math.fsum(above) / whole, drawn["above"][positive] / drawn["below"][positive])


def resampled_means(
    columns: Mapping[str, Sequence[float] | Floats],
    groups: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = NUM_RESAMPLES,
) -> dict[str, Floats]:
    """The mean of each column in each draw of whole groups, [resamples]; see `bootstrap_estimates`.

    For figures that are no plain means: compute them draw by draw and give them to `percentile_estimate`.
    """
    if not groups or any(len(values) != len(groups) for values in columns.values()):
        raise ValueError("a bootstrap needs at least one problem and a value of each column for each")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    index = np.fromiter((numbers[group] for group in groups), np.int64, len(groups))
    stacked = np.array([np.ones(len(groups)), *(np.asarray(values, np.float64) for values in columns.values())])
    if not np.isfinite(stacked).all():
        raise ValueError("a bootstrap needs finite values")
    totals = np.array([np.bincount(index, weights=values) for values in stacked]).T  # [groups, 1 + columns]
    drawn = np.concatenate(
        [counts.astype(np.float64) @ totals for counts in group_counts(len(numbers), resamples, seed)]
    )  # [resamples, 1 + columns]: the number of problems of each draw, and the columns' sums
    return {name: drawn[:, place] / drawn[:, 0] for place, name in enumerate(columns, 1)}


def group_counts(num_groups: int, resamples: int, seed: int) -> Iterator[Ints]:
    """How often each group is drawn in each resample, in chunks [some resamples, num_groups] of bounded size.

    Each resample draws `num_groups` of them with replacement. The chunks do not depend on the columns.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _MAX_CELLS // num_groups)
    for first in range(0, resamples, rows):
        num = min(rows, resamples - first)
        drawn = rng.integers(num_groups, size=(num, num_groups))
        drawn += np.arange(num)[:, None] * num_groups
        yield np.bincount(drawn.ravel(), minlength=num * num_groups).reshape(num, num_groups)


def percentile_estimate(value: float, draws: Floats) -> Estimate:
    """`value` with the 95 % percentile interval of its draws."""
    ordered = np.sort(draws)
    tail = round(len(ordered) * (1 - LEVEL) / 2)
    return Estimate(value, float(ordered[tail]), float(ordered[len(ordered) - 1 - tail]))


def wilson_interval(num_right: float, num_total: int) -> Estimate:
    """A proportion with its 95 % score interval (Wilson 1927), sound at 0, at 1 and for few problems.

    Args:
        num_right: a fraction where tied answers share a choice.
        num_total: independent problems.

    Raises:
        ValueError: unless 0 <= num_right <= num_total and num_total > 0.
    """
    if not 0 <= num_right <= num_total or num_total == 0:
        raise ValueError(f"{num_right} of {num_total} is no proportion")
    share, z2 = num_right / num_total, _Z_95**2
    centre = (share + z2 / (2 * num_total)) / (1 + z2 / num_total)
    half = _Z_95 * math.sqrt(share * (1 - share) / num_total + z2 / (4 * num_total**2)) / (1 + z2 / num_total)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), method="wilson")
