"""A rehearsal as a page: the score, a time line of each run with its faults, and what each problem took.

Knows rehearsed runs and their times; uses the report's style. Ids are foreign text and are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mathlete.kaggle.faults import MEANINGS, DoneFault
from mathlete.kaggle.rehearsal import Rehearsed, RehearsedRun
from mathlete.kaggle.rehearsal_times import ProblemTime
from mathlete.report.chart import show_time, time_ticks
from mathlete.report.markup import Html, join, shorten, tag
from mathlete.report.page import render_document
from mathlete.report.timeline import assign_lanes, format_s

# In units of the view box, from top to bottom: problems, their attempts, banked time, the axis.
_WIDTH, _PROBLEM, _ATTEMPTS, _BANKED, _AXIS, _GAP = 1000, 26, 80, 60, 22, 8
_LABELS = 14  # above: names of faults
_MAX_WARNINGS = 20

Scale = Callable[[float], float]
"""From seconds to a place in the view box."""


def render_rehearsal(rehearsed: Rehearsed, times: Sequence[Sequence[ProblemTime]]) -> str:
    """The page. Pure; never raises on hostile text.

    Args:
        rehearsed: how it went.
        times: of each run.
    """
    header = tag(
        "header",
        tag("p", "Mathlete", class_="brand"),
        tag("h1", "A contest, rehearsed"),
        tag("p", f"{rehearsed.num_problems} problems, {format_s(rehearsed.clock_s)} a run.", class_="ending"),
        class_="page-header",
    )
    sections = [_run(run, rows, rehearsed) for run, rows in zip(rehearsed.runs, times, strict=True)]
    return render_document(
        f"Mathlete: rehearsal {rehearsed.name}", tag("main", header, _tiles(rehearsed), join(sections))
    )


def _tiles(rehearsed: Rehearsed) -> Html:
    tiles = []
    if rehearsed.two_run_score is not None:
        tiles.append(_tile("Score", f"{rehearsed.two_run_score:g}", f"of {rehearsed.num_problems}: 1, 0.5 or 0 each"))
    for run in rehearsed.runs:
        if rehearsed.golds:
            tiles.append(_tile(f"Right in run {run.number}", str(len(run.right)), f"of {len(rehearsed.golds)}"))
        in_time = "in time" if run.is_in_time else "late"
        tiles.append(
            _tile(f"Time of run {run.number}", format_s(run.elapsed_s), f"{in_time}; {len(run.calls)} answers")
        )
    return tag("dl", *tiles, class_="tiles")


def _tile(name: str, value: str, note: str) -> Html:
    return tag("div", tag("dt", name), tag("dd", value, class_="value"), tag("dd", note, class_="note"), class_="tile")


def _run(run: RehearsedRun, rows: Sequence[ProblemTime], rehearsed: Rehearsed) -> Html:
    told = [f"Ended early: {run.error}"] if run.error else []
    told += [f"Lost: {sentence}" for sentence in run.losses] or ["Nothing was lost."]
    if run.num_restarts:
        told.append(f"The entrant was started again {run.num_restarts} times.")
    report = tag("p", tag("a", "Report of this run", href=f"../{run.run_id}/report.html"))
    picture = tag("div", draw_times(rows, run, rehearsed.clock_s), class_="scroll", role="region", tabindex=0,
                  aria_label=f"Time line of run {run.number}")  # fmt: skip
    return tag(
        "section",
        tag("h2", f"Run {run.number}"),
        join(tag("p", sentence, class_="quiet") for sentence in told),
        picture,
        _table(rows),
        _faults(run),
        _warnings(run),
        report,
        class_="time",
    )


def draw_times(rows: Sequence[ProblemTime], run: RehearsedRun, clock_s: float) -> Html:
    """The time line: problems, the attempts below them, the time banked, and faults as marks."""
    span_s = max(clock_s, run.elapsed_s, 1e-9)

    def x(at_s: float) -> float:
        return _WIDTH * min(max(at_s, 0.0), span_s) / span_s

    top = _LABELS
    attempts_top, banked_top = top + _PROBLEM + _GAP, top + _PROBLEM + _ATTEMPTS + 2 * _GAP
    bottom = banked_top + _BANKED + _GAP
    ticks = [
        tag("text", show_time(tick), x=f"{x(tick):.1f}", y=bottom + _AXIS - 6, text_anchor=_anchor(x(tick)))
        for tick in time_ticks(span_s)
    ]
    return tag(
        "svg",
        tag("path", d=f"M0 {bottom}H{_WIDTH}", class_="axis"),
        join(ticks),
        join(_problem_bar(number, row, run, x, top) for number, row in enumerate(rows, 1)),
        _attempt_bars([span for row in rows for span in row.attempts], x, attempts_top),
        _banked(rows, x, banked_top),
        join(_fault_mark(fault, x(fault.wall_time - run.started_wall_time), bottom) for fault in run.faults),
        tag("path", d=f"M{x(clock_s):.1f} {top}V{bottom}", class_="limit"),
        class_="timeline",
        viewBox=f"0 0 {_WIDTH} {bottom + _AXIS}",
        role="img",
        aria_label=f"Time line of run {run.number}: problems, attempts, banked time and faults",
    )  # fmt: skip


def _problem_bar(number: int, row: ProblemTime, run: RehearsedRun, x: Scale, top: float) -> Html:
    """From question to answer, with the problem's share of the clock as a thin bar below it."""
    left, right = x(row.asked_s), x(row.answered_s)
    width = max(2.0, right - left - 1.5)
    share = "" if row.share_s is None else f" of a share of {format_s(row.share_s)}"
    state = {True: "right", False: "wrong", None: "answered"}[row.is_right]
    label = f"{number}, {shorten(row.id, 40)}: {row.answer}, {state}, {format_s(row.seconds)}{share}"
    name = f"{number} ✗" if row.is_right is False else str(number)
    fits = width > 9 * len(name)
    had = x(row.answered_s - row.seconds + (row.share_s or 0.0)) - left
    return join(
        [
            tag(
                "a",
                tag("title", label),
                tag("rect", x=f"{left:.1f}", y=top, width=f"{width:.1f}", height=_PROBLEM, rx=2),
                tag("text", name, x=f"{left + width / 2:.1f}", y=top + _PROBLEM / 2, class_="mid") if fits else "",
                href=f"../{run.run_id}/report.html",
                class_=state,
                aria_label=label,
            ),
            tag("rect", x=f"{left:.1f}", y=top + _PROBLEM + 2, width=f"{max(0.0, had):.1f}", height=2),
        ]
    )


def _anchor(at: float) -> str:
    return "start" if at < 1 else "end" if at > _WIDTH - 1 else "middle"


def _attempt_bars(spans: Sequence[tuple[float, float]], x: Scale, top: float) -> Html:
    spans = sorted(spans)
    lanes = assign_lanes(spans)
    height = _ATTEMPTS / max(1, max(lanes, default=0) + 1)
    return join(
        tag(
            "rect",
            x=f"{x(start_s):.1f}",
            y=f"{top + lane * height:.1f}",
            width=f"{max(0.8, x(end_s) - x(start_s) - 0.5):.1f}",
            height=f"{max(0.8, min(6.0, height - 0.8)):.1f}",
        )
        for (start_s, end_s), lane in zip(spans, lanes, strict=True)
    )


def _banked(rows: Sequence[ProblemTime], x: Scale, top: float) -> Html:
    if not rows:
        return Html()
    most = max(1e-9, max(abs(row.banked_s) for row in rows))
    middle = top + _BANKED / 2
    points = " ".join(f"L{x(row.answered_s):.1f} {middle - row.banked_s / most * _BANKED / 2:.1f}" for row in rows)
    last = rows[-1]
    return join(
        [
            tag("path", d=f"M0 {middle}H{_WIDTH}", class_="axis"),
            tag("path", d=f"M0 {middle} {points}", class_="limit", fill="none"),
            tag("text", f"banked: up to {format_s(most)} ahead or behind; {_signed(last.banked_s)} at the end",
                x=0, y=top + 10),
        ]
    )  # fmt: skip


def _fault_mark(fault: DoneFault, at: float, bottom: float) -> Html:
    label = f"{MEANINGS[fault.kind]} ({fault.detail})"
    return tag(
        "g",
        tag("title", label),
        tag("path", d=f"M{at:.1f} {_LABELS - 3}V{bottom}", class_="limit"),
        tag("text", "⚡", x=f"{at:.1f}", y=_LABELS - 4, class_="mid", aria_label=label),
    )


def _table(rows: Sequence[ProblemTime]) -> Html:
    names = ("", "Problem", "Answer", "Label", "Seconds", "Share", "Banked", "Attempts", "Asked", "Ended because")
    body = [
        tag(
            "tr",
            *(
                tag("td", cell)
                for cell in (
                    str(number), shorten(row.id, 40), str(row.answer), row.gold or "—", f"{row.seconds:.1f}",
                    "—" if row.share_s is None else f"{row.share_s:.1f}", _signed(row.banked_s), str(len(row.attempts)),
                    str(row.num_asked), shorten(row.reason, 80),
                )
            ),
        )
        for number, row in enumerate(rows, 1)
    ]  # fmt: skip
    head = tag("tr", *(tag("th", name, scope="col") for name in names))
    table = tag("table", tag("thead", head), tag("tbody", *body))
    return tag("div", table, class_="tables scroll", role="region", tabindex=0, aria_label="Problems of this run")


def _faults(run: RehearsedRun) -> Html:
    if not run.faults and not run.not_done:
        return Html()
    items = [
        tag(
            "li",
            f"{format_s(max(0.0, fault.wall_time - run.started_wall_time))}: {MEANINGS[fault.kind]} ({fault.detail})",
        )
        for fault in run.faults
    ]
    items += [tag("li", f"no occasion: {MEANINGS[fault.kind]}") for fault in run.not_done]
    return tag("section", tag("h3", "What went wrong, as asked for"), tag("ul", *items), class_="warnings")


def _warnings(run: RehearsedRun) -> Html:
    if not run.warnings:
        return Html()
    items = [tag("li", shorten(message, 400)) for message in run.warnings[:_MAX_WARNINGS]]
    return tag("section", tag("h3", "What the entrant said"), tag("ul", *items), class_="warnings")


def _signed(seconds: float) -> str:
    return f"{'+' if seconds >= 0 else '-'}{format_s(math.fabs(seconds))}"
