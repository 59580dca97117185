"""What a decoding step costs by its number of rows: a measured curve, kept true by the steps that follow.

Knows rows and seconds; knows nothing of drafts or requests.

The logarithm of a step's seconds is taken to be: a *drift* that all widths share (the machine is busy, the contexts
have grown) plus the *curve*, a smooth function of the rows. Both are tracked by a Kalman filter whose state is the
drift and the curve at `KNOTS`: a step at one width moves the drift at once, which moves all widths, and its own part of
the curve little by little. What one step can say is bounded (Huber), so that a hiccup of the machine says little.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mathlete.ryanstream.remembered import remembered

Floats = npt.NDArray[np.float64]

KNOTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 320)
_LOG_KNOTS = np.log2(np.array(KNOTS, dtype=np.float64))
# Standard deviations, of logarithms of seconds.
_NOISE = 0.12  # of one step, on a machine that others use too
_MEASURED, _GUESSED = 0.1, 0.35  # of a curve's shape, before the first step
_ROUGHNESS = 0.03  # of a knot beside its neighbours
_DRIFT, _SHAPE_DRIFT = 0.03, 0.001  # from a step to the next
_DRIFT_MEASURED, _DRIFT_GUESSED = 0.3, 10.0  # of the drift, before the first step
_OCTAVES = 2.0  # over which the shape's deviations go together
_CLIP = 2.0  # how many standard deviations of surprise a step can bring


@dataclass(frozen=True, slots=True)
class StepCurve:
    """Measured seconds of a step: `seconds[i]` at `rows[i]`, which rise.

    `__post_init__` raises `ValueError` for anything else, or seconds that are not positive and finite.
    """

    rows: tuple[int, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise `ValueError` naming what is wrong."""
        if not self.rows or len(self.rows) != len(self.seconds):
            raise ValueError(f"a curve needs as many rows as seconds, not {len(self.rows)} and {len(self.seconds)}")
        if self.rows[0] < 1 or any(b <= a for a, b in zip(self.rows, self.rows[1:], strict=False)):
            raise ValueError(f"rows must rise from at least 1, not {self.rows}")
        if not all(0 < seconds < math.inf for seconds in self.seconds):
            raise ValueError(f"seconds must be positive, not {self.seconds}")

    def at(self, num_rows: int) -> float:
        """Interpolated; beyond the last it goes on as steeply as over the last octave, but never falls."""
        half = self.rows[-1] / 2
        slope = (self.seconds[-1] - float(np.interp(half, self.rows, self.seconds))) / half
        beyond = max(0, num_rows - self.rows[-1]) * max(0.0, slope)
        return float(np.interp(num_rows, self.rows, self.seconds)) + beyond


# Only a shape; the first steps say how long it is. Dear on purpose: what is not known to be cheap is not tried much.
_UNKNOWN = StepCurve((1, 4, 8, 16, 32, 320), (1.0, 1.5, 2.1, 3.3, 5.5, 45.0))


class StepCostModel:
    """Expected seconds of a step for any number of rows; learns from every step."""

    def __init__(self, curve: StepCurve | None = None) -> None:
        """Start from a measured curve, or, without one, from a guess that the steps correct."""
        known = 0 if curve is None else curve.rows[-1]
        deviations = np.array([_MEASURED if rows <= known else _GUESSED for rows in KNOTS])
        drift = _DRIFT_GUESSED if curve is None else _DRIFT_MEASURED
        curve = curve or _UNKNOWN
        self._mean: Floats = np.array([0.0, *(math.log(curve.at(rows)) for rows in KNOTS)])
        apart = np.abs(_LOG_KNOTS[:, None] - _LOG_KNOTS[None, :])
        smooth = np.exp(-apart / _OCTAVES)
        size = len(KNOTS) + 1
        self._covariance: Floats = np.zeros((size, size))
        self._covariance[0, 0] = drift**2
        self._covariance[1:, 1:] = np.outer(deviations, deviations) * smooth + _ROUGHNESS**2 * np.eye(len(KNOTS))
        self._growth: Floats = np.zeros((size, size))  # of the covariance from a step to the next
        self._growth[0, 0] = _DRIFT**2
        self._growth[1:, 1:] = _SHAPE_DRIFT**2 * smooth
        self._table: Floats | None = None

    def note(self, num_rows: int, seconds: float) -> None:
        """Learn from one step that computed `num_rows` rows."""
        if num_rows < 1 or not 0 < seconds < math.inf:
            raise ValueError(f"a step has rows and takes time, not {num_rows} and {seconds} s")
        seen = _weights(num_rows)
        self._covariance += self._growth
        shared = self._covariance @ seen
        variance = float(seen @ shared) + _NOISE**2
        surprise = math.log(seconds) - float(seen @ self._mean) - _beyond(num_rows)
        bound = _CLIP * math.sqrt(variance)
        self._mean += shared * (min(max(surprise, -bound), bound) / variance)
        self._covariance -= np.outer(shared, shared) / variance
        self._table = None

    def seconds(self, num_rows: int) -> float:
        """Expected seconds of a step of `num_rows` rows."""
        return float(self.table(num_rows)[num_rows])

    def table(self, num_rows: int) -> Floats:
        """Expected seconds of a step of 0, 1, ..., at least `num_rows` rows; never falls. Not to be written to."""
        if self._table is None or len(self._table) <= num_rows:
            size = max(num_rows, KNOTS[-1])
            knots = np.exp(_rising(self._mean[1:]) + self._mean[0])
            self._table = np.interp(np.arange(size + 1), KNOTS, knots)
            self._table[KNOTS[-1] :] = knots[-1] * np.arange(KNOTS[-1], size + 1) / KNOTS[-1]
        return self._table


def _weights(num_rows: int) -> Floats:
    """What a step of so many rows sees of the state: all of the drift, and the knots beside it."""
    weights = np.zeros(len(KNOTS) + 1)
    weights[0] = 1.0
    above = int(np.searchsorted(KNOTS, num_rows))
    if above == len(KNOTS) or KNOTS[above] == num_rows:
        weights[1 + min(above, len(KNOTS) - 1)] = 1.0
        return weights
    low, high = KNOTS[above - 1], KNOTS[above]
    weights[above] = (high - num_rows) / (high - low)
    weights[above + 1] = (num_rows - low) / (high - low)
    return weights


def _beyond(num_rows: int) -> float:
    """Past the last knot time grows with the rows."""
    return max(0.0, math.log(num_rows / KNOTS[-1]))


def _rising(values: Floats) -> Floats:
    """The nearest sequence that never falls (pool adjacent violators; isotonic regression)."""
    if np.all(values[1:] >= values[:-1]):
        return values
    pools: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            below, num = pools.pop()
            mean, count = (mean * count + below * num) / (count + num), count + num
        pools.append((mean, count))
    return np.repeat([mean for mean, _ in pools], [count for _, count in pools])


def remembered_curve(path: Path, rows: tuple[int, ...], measure: Callable[[], StepCurve]) -> StepCurve:
    """The curve kept at `path`, or, when there is none with these rows, one measured and kept there."""

    def read(kept: Any) -> StepCurve | None:
        curve = StepCurve(tuple(map(int, kept["rows"])), tuple(map(float, kept["seconds"])))
        return curve if curve.rows == rows else None

    return remembered(path, read, measure, lambda curve: {"rows": curve.rows, "seconds": curve.seconds})
