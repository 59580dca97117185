"""Shares over some price or count, as a picture: a few named lines with axes, some with a band around them.

Knows lines of points and how to draw them. Does not know what they mean, nor runs. Lines differ by their dashes as well
as by colour, and each carries its name at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mathlete.report.markup import Html, join, tag

# In units of the view box: its size, and what is around the plotted area.
_WIDTH, _HEIGHT = 350, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 36, 96, 10, 26
_NAME_HEIGHT = 14
_MINUTE_S, _HOUR_S = 60.0, 3600.0
_STEPS_S = (
    *(1.0, 2.0, 5.0, 10.0, 20.0, 30.0),
    *(_MINUTE_S * number for number in (1, 2, 5, 10, 20, 30)),
    *(_HOUR_S * number for number in (1, 2, 3, 6, 12, 24, 48, 96)),
)

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a picture.

    Attributes:
        name: said at its end; short.
        kind: "first", "second" or "third": its colour and dashes.
        points: (where, share), `where` never falling; shares in [0, 1].
        band: lower and upper end of the interval at each point; empty for none.
        steps: whether the share stays as it is until the next point, rather than going straight to it.
    """

    name: str
    kind: str
    points: tuple[Point, ...]
    band: tuple[Point, ...] = ()
    steps: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """What is below the picture.

    Attributes:
        first: its left end.
        last: its right end.
        ticks: what is marked, between them.
        show: a tick in words.
    """

    first: float
    last: float
    ticks: tuple[float, ...]
    show: Callable[[float], str]


def draw_lines(lines: Sequence[Line], axis: Axis, label: str) -> Html:
    """The picture; empty without a line that has points.

    Args:
        lines: the ones that matter most first: it is drawn on top.
        axis: below.
        label: what the picture shows, for those who cannot see it; the ends of the lines are added.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return Html()
    highest = max(share for line in lines for _, share in (*line.points, *line.band))
    top = min(1.0, max(0.1, math.ceil(highest * 10 - 1e-9) / 10))

    def at(point: Point) -> Point:
        across = (point[0] - axis.first) / (axis.last - axis.first or 1.0)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - point[1] / top * (
            _HEIGHT - _BOTTOM - _TOP
        )

    spoken = "; ".join(f"{line.name} {line.points[-1][1]:.0%}" for line in lines)
    return tag(
        "svg",
        draw_axes(axis, top, at),
        join(_band(line, at) for line in lines if line.band),
        join(_line(line, at) for line in reversed(lines)),
        _names(lines, at),
        class_="lines",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{label} At the end: {spoken}.",
    )


def round_ticks(most: float) -> tuple[float, ...]:
    """0 and up to four round numbers, the last not above `most`."""
    rough = max(most, 1e-9) / 4
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * scale for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * scale >= rough * (1 - 1e-9))
    return _up_to(most, step)


def time_ticks(most_s: float) -> tuple[float, ...]:
    """0 and up to four moments that are round on a clock, the last not after `most_s`, seconds."""
    return _up_to(most_s, next((step for step in _STEPS_S if step * 4 >= most_s), most_s / 4))


def show_time(seconds: float) -> str:
    """A tick of `time_ticks` in words, short: "30 s", "5 min", "1.5 h"."""
    if seconds < _MINUTE_S:
        return f"{seconds:g} s"
    return f"{seconds / _MINUTE_S:g} min" if seconds < 2 * _HOUR_S else f"{seconds / _HOUR_S:g} h"


def show_count(number: float) -> str:
    """A number of tokens in words, short: "800", "25k", "1.5M"."""
    if number < 1_000:
        return f"{number:g}"
    return f"{number / 1e3:g}k" if number < 1_000_000 else f"{number / 1e6:g}M"


def _up_to(most: float, step: float) -> tuple[float, ...]:
    return tuple(step * number for number in range(math.floor(most / step + 1e-9) + 1))


def draw_axes(axis: Axis, top: float, at: Callable[[Point], Point]) -> Html:
    """Both axes, shares from 0 to `top`; `at` says where in the view box a point is."""
    left, bottom = at((axis.first, 0.0))
    right, _ = at((axis.last, 0.0))
    step = 0.1 if top <= 0.5 else 0.2
    drawn = []
    for number in range(math.floor(top / step + 1e-9) + 1):
        _, y = at((axis.first, number * step))
        drawn.append(tag("path", d=f"M{left} {y:.1f}H{right:.1f}", class_="grid"))
        drawn.append(tag("text", f"{number * step:.0%}", x=left - 6, y=f"{y + 4:.1f}", class_="last"))
    for tick in axis.ticks:
        drawn.append(tag("text", axis.show(tick), x=f"{at((tick, 0.0))[0]:.1f}", y=bottom + 17, class_="mid"))
    return tag("g", *drawn, class_="axes")


def _band(line: Line, at: Callable[[Point], Point]) -> Html:
    there = [at((x, low)) for (x, _), (low, _) in zip(line.points, line.band, strict=True)]
    back = [at((x, high)) for (x, _), (_, high) in zip(line.points, line.band, strict=True)]
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in (*there, *reversed(back)))
    return tag("path", d=f"M{corners.replace(' ', 'L')}Z", class_=f"band {line.kind}")


def _line(line: Line, at: Callable[[Point], Point]) -> Html:
    return tag("path", d=path_through(line.points, at, line.steps), class_=f"line {line.kind}")


def path_through(points: Sequence[Point], at: Callable[[Point], Point], steps: bool) -> str:
    """A path of SVG through one or more points, in steps or straight from one to the next."""
    x, y = at(points[0])
    path = [f"M{x:.1f} {y:.1f}"]
    for point in points[1:]:
        x, y = at(point)
        path.append(f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}")
    return "".join(path)


def _names(lines: Sequence[Line], at: Callable[[Point], Point]) -> Html:
    """The names at the ends of the lines, moved apart where they would lie on one another."""
    drawn, free_from = [], 0.0
    for y, line in sorted(((at(line.points[-1])[1], line) for line in lines), key=lambda pair: pair[0]):
        y = max(y, free_from)
        free_from = y + _NAME_HEIGHT
        words = f"{line.name} {line.points[-1][1]:.0%}"
        drawn.append(tag("text", words, x=_WIDTH - _RIGHT + 8, y=f"{y + 4:.1f}", class_=f"name {line.kind}"))
    return join(drawn)
