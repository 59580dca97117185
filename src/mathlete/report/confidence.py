"""How sure the model was along an attempt, as a small picture.

Knows entropies in nats and how to draw them. Does not know attempts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mathlete.report.markup import Html, tag

MAX_POINTS = 120
_HEIGHT = 100
_MIN_CEILING_NATS = 0.5


@dataclass(frozen=True, slots=True)
class Curve:
    """Entropies along an attempt, thinned out.

    Attributes:
        points: mean entropy of equal stretches of tokens, nats, at most `MAX_POINTS` of them.
        mean: over all tokens, nats.
        highest: of all tokens, nats.
        num_tokens: tokens with a finite entropy.
        boundaries: where one turn ends and the next begins, each in (0, 1).
    """

    points: tuple[float, ...]
    mean: float
    highest: float
    num_tokens: int
    boundaries: tuple[float, ...]


def curve_of(turns: Sequence[Sequence[float]]) -> Curve | None:
    """The curve of an attempt given the entropies of its turns; None when there are none."""
    finite = [[value for value in turn if math.isfinite(value)] for turn in turns]
    values = [max(0.0, value) for turn in finite for value in turn]
    if not values:
        return None
    ends = [sum(map(len, finite[: index + 1])) for index in range(len(finite))]
    return Curve(
        points=_thin_out(values),
        mean=math.fsum(values) / len(values),
        highest=max(values),
        num_tokens=len(values),
        boundaries=tuple(end / len(values) for end in ends if 0 < end < len(values)),
    )


def shared_ceiling(curves: Sequence[Curve]) -> float:
    """The entropy at the top of every picture of a run, so that pictures can be compared, nats."""
    return max([_MIN_CEILING_NATS, *(point for curve in curves for point in curve.points)])


def draw_curve(curve: Curve, ceiling: float, css_class: str) -> Html:
    """The curve as an SVG that stretches to the box its class gives it; high means unsure."""
    width = len(curve.points)
    heights = [_HEIGHT - round(_HEIGHT * min(point / ceiling, 1.0)) for point in curve.points]
    steps = "".join(f"V{height}h1" for height in heights)
    ticks = "".join(f"M{width * boundary:.1f} 0v{_HEIGHT}" for boundary in curve.boundaries)
    label = f"Entropy along {curve.num_tokens:,} tokens: mean {curve.mean:.2f}, highest {curve.highest:.2f} nats"
    return tag(
        "svg",
        tag("title", label),
        tag("path", d=f"M0 {_HEIGHT}{steps}V{_HEIGHT}z", class_="area"),
        tag("path", d=ticks, class_="tick") if ticks else "",
        class_=css_class,
        viewBox=f"0 0 {width} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


def _thin_out(values: Sequence[float]) -> tuple[float, ...]:
    num_points = min(MAX_POINTS, len(values))
    edges = [index * len(values) // num_points for index in range(num_points + 1)]
    return tuple(math.fsum(values[begin:end]) / (end - begin) for begin, end in zip(edges[:-1], edges[1:], strict=True))
