"""When each problem was open, as a picture: the run's clock from left to right.

Knows summaries of problems and the budget. Problems open at the same time stand in lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mathlete.report.markup import Html, join, tag
from mathlete.report.summary import ProblemSummary

_WIDTH, _AXIS, _MAX_HEIGHT = 1000, 22, 240

_MOST_EMPTY = 4  # times its length that the picture may be longer than the run

Link = Callable[[int], str]  # from a problem's number to where it is shown


def in_page(number: int) -> str:
    """Where a problem is shown in a report of one page."""
    return f"#problem-{number}"


def assign_lanes(intervals: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """The first free lane of each interval, given in order of their starts."""
    ends: list[float] = []
    lanes = []
    for start, end in intervals:
        lane = next((index for index, busy_until in enumerate(ends) if busy_until <= start), len(ends))
        if lane == len(ends):
            ends.append(end)
        ends[lane] = end
        lanes.append(lane)
    return tuple(lanes)


def draw_timeline(
    problems: Sequence[ProblemSummary], elapsed_s: float, budget_s: float | None, link: Link = in_page
) -> Html:
    """One bar per opened problem, linked to where it is shown; empty when none has been opened."""
    opened = sorted(
        ((p.record.opened_at_s, p) for p in problems if p.record.opened_at_s is not None), key=lambda pair: pair[0]
    )
    span_s = max(elapsed_s, budget_s or 0.0)
    if elapsed_s * _MOST_EMPTY < span_s:  # a run that was over long before: its bars would be too narrow to see
        span_s = elapsed_s
    if not opened or span_s <= 0:
        return Html()
    lanes = assign_lanes([(start, start + (p.elapsed_s or 0.0)) for start, p in opened])
    lane_height = max(5, min(26, _MAX_HEIGHT // (max(lanes) + 1)))
    bottom = lane_height * (max(lanes) + 1)
    scale = _WIDTH / span_s
    bars = [
        _bar(p, start * scale, lane * lane_height, lane_height, scale, link)
        for (start, p), lane in zip(opened, lanes, strict=True)
    ]
    return tag(
        "svg",
        tag("path", d=f"M0 {bottom + 3}H{_WIDTH}", class_="axis"),
        tag("text", "0", x=0, y=bottom + _AXIS - 4),
        _end_of_time(elapsed_s, budget_s, span_s, bottom),
        join(bars),
        class_="timeline",
        viewBox=f"0 0 {_WIDTH} {bottom + _AXIS}",
        role="group",
        aria_label="When each problem was open",
    )


def format_s(seconds: float) -> str:
    """Seconds for a person: "8.4 s", "6 min 12 s", "1 h 02 min"."""
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _bar(problem: ProblemSummary, left: float, top: int, lane_height: int, scale: float, link: Link) -> Html:
    width = max(2.0, (problem.elapsed_s or 0.0) * scale - 1.5)
    height = lane_height - (4 if lane_height > 10 else 1)
    name = f"{problem.number} ✗" if problem.state == "wrong" else str(problem.number)  # not told by colour alone
    fits = width > 9 * len(name) and height >= 12
    label = (
        f"Problem {problem.number}, {problem.record.problem.id}: {problem.state}, {format_s(problem.elapsed_s or 0.0)}"
    )
    return tag(
        "a",
        tag("title", label),
        tag("rect", x=f"{left:.1f}", y=top, width=f"{width:.1f}", height=height, rx=2),
        tag("text", name, x=f"{left + width / 2:.1f}", y=top + height / 2, class_="mid") if fits else "",
        href=link(problem.number),
        class_=problem.state,
        aria_label=label,
    )


def _end_of_time(elapsed_s: float, budget_s: float | None, span_s: float, bottom: int) -> Html:
    """The mark at the budget's end, or the elapsed time when there is no budget or it lies far off."""
    if budget_s is None or budget_s > span_s:
        return tag("text", format_s(elapsed_s), x=_WIDTH, y=bottom + _AXIS - 4, class_="end")
    x = _WIDTH * budget_s / span_s
    return join(
        [
            tag("path", d=f"M{x:.1f} 0V{bottom + 3}", class_="limit"),
            tag("text", f"budget {format_s(budget_s)}", x=f"{x:.1f}", y=bottom + _AXIS - 4, class_="end"),
        ]
    )
