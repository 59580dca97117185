"""Accuracy against its price, as a picture: a line and an end point for each of a few runs.

Knows lines of points and how to draw them. Does not know what the prices are, nor runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mathlete.report.chart import Axis, Point, draw_axes, path_through
from mathlete.report.markup import Html, tag

# In units of the view box: its size, and what is around the plotted area.
_WIDTH, _HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 34, 14, 30
_MARK = 8.5  # radius of the disc that carries a run's letter
NUM_COLOURS = 6


@dataclass(frozen=True, slots=True)
class PricedRun:
    """One run in the picture.

    Attributes:
        letter: stands in its end point.
        points: (price, share) along its course, prices never falling.
        end: (price, accuracy) of the run as it was.
        low: lower end of the interval of the end's accuracy.
        high: upper end.
    """

    letter: str
    points: tuple[Point, ...]
    end: Point
    low: float
    high: float


def draw_prices(runs: Sequence[PricedRun], axis: Axis, label: str, *, steps: bool = False) -> Html:
    """The picture of one or more runs.

    Args:
        runs: what is drawn, in the order of their colours.
        axis: below.
        label: what the picture shows, for those who cannot see it; the end points are added.
        steps: whether the share stays as it is until the next point, rather than going straight to it.
    """
    highest = max(share for run in runs for share in (run.high, *(share for _, share in run.points)))
    top = min(1.0, max(0.1, math.ceil(highest * 10 - 1e-9) / 10))

    def at(point: Point) -> Point:
        across = _LEFT + point[0] / axis.last * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - point[1] / top * (_HEIGHT - _BOTTOM - _TOP)

    spoken = "; ".join(f"{run.letter} {run.end[1]:.1%} at {axis.show(round(run.end[0]))}" for run in runs)
    lines = [
        tag("path", d=path_through(run.points, at, steps), class_=f"line {colour_of(index)}")
        for index, run in enumerate(runs)
        if run.points
    ]
    return tag(
        "svg",
        draw_axes(axis, top, at),
        *lines,
        *(_end(run, index, at) for index, run in enumerate(runs)),
        class_="lines prices",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{label} {spoken}.",
    )


def colour_of(index: int) -> str:
    """The class that gives a run its colour; a seventh run shares one and is told apart by its letter."""
    return f"run-{index % NUM_COLOURS + 1}"


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
