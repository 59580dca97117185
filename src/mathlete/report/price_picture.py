"""Accuracy against its price, as a picture: a line and an end point for each of a few runs.

Knows lines of points and how to draw them with axes. Does not know what the prices are, nor runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mathlete.report.markup import Html, join, tag

_WIDTH, _HEIGHT = 460, 260  # of the plotted area and what is around it, in units of the view box
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 16, 14, 30
_MARK = 8.5  # radius of the disc that carries a run's letter
MAX_COLOURS = 6

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class PricedRun:
    """One run in the picture.

    Attributes:
        letter: stands in its end point.
        points: (price, accuracy) along its course, prices never falling.
        end: (price, accuracy) of the run as it was.
        low: lower end of the interval of the end's accuracy.
        high: upper end.
    """

    letter: str
    points: tuple[Point, ...]
    end: Point
    low: float
    high: float


def draw_prices(runs: Sequence[PricedRun], name: str, show: Callable[[float], str], *, steps: bool = False) -> Html:
    """The picture; empty without runs.

    Args:
        runs: what is drawn, in the order of their colours.
        name: of the price, for those who cannot see.
        show: the price in words, for the axis.
        steps: whether accuracy stays as it is until the next point, rather than going straight to it.
    """
    if not runs:
        return Html()
    most = max([price for run in runs for price, _ in (*run.points, run.end)] + [0.0]) or 1.0
    reached = max([run.high for run in runs] + [share for run in runs for _, share in run.points])
    ticks, top = _ticks(most), min(1.0, math.ceil(reached * 10) / 10 or 0.1)

    def at(point: Point) -> Point:
        across, up = point[0] / ticks[-1], point[1] / top
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _TOP),
        )

    spoken = "; ".join(f"{run.letter}: {run.end[1]:.1%} at {show(run.end[0])}" for run in runs)
    drawn = [_line(run, index, at, steps) for index, run in enumerate(runs)]
    ends = [_end(run, index, at) for index, run in enumerate(runs)]
    return tag(
        "svg",
        _axes(ticks, top, at, show),
        join([*drawn, *ends]),
        class_="prices",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"Accuracy against {name}. {spoken}",
    )


def colour_of(index: int) -> str:
    """The class that gives a run its colour; a seventh run shares one and is told apart by its letter."""
    return f"run-{index % MAX_COLOURS + 1}"


def _line(run: PricedRun, index: int, at: Callable[[Point], Point], steps: bool) -> Html:
    if not run.points:
        return Html()
    x, y = at(run.points[0])
    path = f"M{x:.1f} {y:.1f}"
    for point in run.points[1:]:
        x, y = at(point)
        path += f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}"
    return tag("path", d=path, class_=f"line {colour_of(index)}")


def _end(run: PricedRun, index: int, at: Callable[[Point], Point]) -> Html:
    x, y = at(run.end)
    _, low = at((run.end[0], run.low))
    _, high = at((run.end[0], run.high))
    return tag(
        "g",
        tag("path", d=f"M{x:.1f} {low:.1f}V{high:.1f}m-4 0h8M{x - 4:.1f} {low:.1f}h8", class_="interval"),
        tag("rect", x=f"{x - _MARK:.1f}", y=f"{y - _MARK:.1f}", width=2 * _MARK, height=2 * _MARK, rx=_MARK),
        tag("text", run.letter, x=f"{x:.1f}", y=f"{y:.1f}", class_="letter"),
        class_=f"end {colour_of(index)}",
    )


def _axes(ticks: Sequence[float], top: float, at: Callable[[Point], Point], show: Callable[[float], str]) -> Html:
    left, bottom = at((0.0, 0.0))
    right, _ = at((ticks[-1], 0.0))
    step = 0.1 if top <= 0.5 else 0.2
    shares = [step * number for number in range(round(top / step) + 1)]
    across = []
    for tick in ticks:
        x, side = f"{at((tick, 0.0))[0]:.1f}", "last" if tick == ticks[-1] else "mid"
        across.append(tag("text", show(tick), x=x, y=bottom + 18, class_=side))
    up = []
    for share in shares:
        _, y = at((0.0, share))
        up.append(tag("path", d=f"M{left} {y:.1f}H{right:.1f}", class_="grid"))
        up.append(tag("text", f"{share:.0%}", x=left - 6, y=f"{y + 4:.1f}", class_="last"))
    return tag("g", *up, *across, class_="axes")


def _ticks(most: float) -> list[float]:
    """0 and up to five round numbers, the last not below `most`."""
    rough = most / 4
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * scale for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * scale >= rough)
    return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]
