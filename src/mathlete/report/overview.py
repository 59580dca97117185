"""The top of a report: what was run, what came of it in numbers, and the table of problems.

Knows a run and its summary. Does not know attempts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from mathlete.core.record import RunRecord
from mathlete.report.markup import Html, join, shorten, tag
from mathlete.report.problem import STATE_WORDS, badge, standing
from mathlete.report.prose import render_excerpt
from mathlete.report.summary import ProblemSummary, RunSummary
from mathlete.report.timeline import Link, draw_timeline, format_s, in_page

_MAX_EXCERPT_CHARS = 90
_MAX_WARNINGS = 50
_ENDINGS = {
    "complete": "Complete.",
    "budget": "Ended by the budget.",
    "interrupted": "Interrupted; it can be resumed.",
}


def render_title(run: RunRecord) -> str:
    """The document's title."""
    num = len(run.problems)
    return f"Mathlete: {num} problem{'' if num == 1 else 's'}, {format_date(run.started_wall_time)}"


def render_overview(run: RunRecord, summary: RunSummary, num_plain: int, findings: Html) -> Html:
    """Everything above the first problem.

    Args:
        run: of the page.
        summary: of the run.
        num_plain: attempts that are shown without typesetting.
        findings: what stands above the table of problems.
    """
    note = ""
    if num_plain:
        words = f"To keep this page light, {num_plain:,} of its attempts are shown as plain text."
        note = tag("p", words, class_="quiet")
    return join([*overview_parts(run, summary).values(), findings, render_table(summary), note])


def overview_parts(run: RunRecord, summary: RunSummary, link: Link = in_page) -> dict[str, Html]:
    """What stands above the table of problems, by name, in order; a part may be empty."""
    timeline = draw_timeline(summary.problems, run.elapsed_s, _budget_s(run), link)
    if timeline:
        timeline = tag("section", tag("h2", "Time"), _scrollable(timeline, "Time line"), class_="time")
    return {"header": _header(run), "tiles": _tiles(run, summary), "warnings": _warnings(run), "time": timeline}


def _header(run: RunRecord) -> Html:
    config = dict(run.config)
    facts: list[tuple[str, str]] = [("Model", _plain(config.pop("model", None) or "several, or not told"))]
    if (budget_s := _budget_s(run)) is not None:
        facts.append(("Budget", format_s(budget_s)))
    config.pop("budget_s", None)
    if "attempts" in config:
        facts.append(("Attempts", f"at most {_plain(config.pop('attempts'))} a problem"))
    for name in ("seed", "version"):
        if name in config:
            facts.append((name.capitalize(), _plain(config.pop(name))))
    facts.append(("Started", format_date(run.started_wall_time)))
    if "isolation" in config:
        facts.append(("Programs isolated by", _layers(config.pop("isolation"))))
    command = config.pop("command", None)
    rest = (
        tag("details", tag("summary", "All settings"), _definitions(config.items()), class_="settings")
        if config
        else ""
    )
    ending = "Unfinished: this is the state at the last recorded event." if run.finished is None else run.finished
    return tag(
        "header",
        tag("p", "Mathlete", class_="brand"),
        tag("h1", "Report of a run" if command is None else f"Report of “{shorten(_plain(command), 160)}”"),
        tag("p", _ENDINGS.get(ending, ending), class_="ending"),
        _definitions(facts),
        rest,
        class_="page-header",
    )


def _layers(isolation: object) -> str:
    if not isinstance(isolation, list | tuple):
        return _plain(isolation)
    return ", ".join(map(_plain, isolation)) or "nothing"


def _definitions(facts: Any) -> Html:
    rows = (
        tag("div", tag("dt", str(name).replace("_", " ")), tag("dd", shorten(_plain(value), 400)))
        for name, value in facts
    )
    return tag("dl", *rows, class_="facts")


def _tiles(run: RunRecord, summary: RunSummary) -> Html:
    num_problems = len(summary.problems)
    tiles = [_tile("Answered", f"{summary.num_answered}", f"of {num_problems} problems")]
    if summary.num_graded:
        share = summary.num_right / summary.num_graded
        tiles.append(
            _tile("Right", f"{summary.num_right}", f"of {summary.num_graded} graded, {share:.0%}", accent=True)
        )
        tiles.append(_tile("In the pool", f"{summary.num_in_pool}", "have the right answer among their attempts"))
    if summary.num_accepted or summary.num_offered:
        tiles.append(_tile("Accepted", f"{summary.num_accepted}", _of_accepted(summary)))
    tiles.append(
        _tile("Attempts answered", f"{summary.num_voting:,}", f"of {summary.num_attempts:,} finished attempts")
    )
    if summary.num_checks:
        tiles.append(_tile("Checks", f"{summary.num_checks:,}", "judged answers and have no vote"))
    rate = "" if summary.tokens_per_s is None else f"{summary.tokens_per_s:,.1f} a second"
    tiles.append(_tile("Tokens", f"{summary.num_tokens:,}", rate))
    budget_s = _budget_s(run)
    limit = "no budget set" if budget_s is None else f"of {format_s(budget_s)}"
    tiles.append(_tile("Time", format_s(run.elapsed_s), limit))
    return tag("dl", *tiles, class_="tiles")


def _of_accepted(summary: RunSummary) -> str:
    right = f"{summary.num_accepted_right} of them right, " if summary.num_graded and summary.num_accepted else ""
    return f"{right}{summary.num_offered} only offered"


def _tile(name: str, value: str, note: str, accent: bool = False) -> Html:
    parts = [tag("dt", name), tag("dd", value, class_="value"), tag("dd", note, class_="note")]
    return tag("div", *parts, class_="tile accent" if accent else "tile")


def _warnings(run: RunRecord) -> Html:
    if not run.warnings:
        return Html()
    items = [tag("li", shorten(message, 1_000)) for message in run.warnings[:_MAX_WARNINGS]]
    if (num_more := len(run.warnings) - _MAX_WARNINGS) > 0:
        items.append(tag("li", f"and {num_more} more"))
    return tag("section", tag("h2", "Warnings"), tag("ul", *items), class_="warnings")


def render_table(summary: RunSummary, link: Link = in_page) -> Html:
    """The table of problems, one row each."""
    has_gold = knows_golds(summary)
    columns = [
        ("", "number"),
        ("Problem", "words"),
        ("Answer", "answer"),
        *([("Right answer", "gold")] if has_gold else []),
        ("Result", "state"),
        ("Confidence", "num wide"),
        ("Votes", "num"),
        ("Tokens", "num wide"),
        ("Time", "num wide"),
        ("Ended because", "ended wide"),
    ]
    head = tag(
        "tr",
        *(
            tag("th", name or tag("span", "Number", class_="hidden"), scope="col", class_=kind)
            for name, kind in columns
        ),
    )
    rows = [render_row(problem, has_gold, link) for problem in summary.problems]
    table = tag(
        "table", tag("caption", "Problems of this run", class_="hidden"), tag("thead", head), tag("tbody", *rows)
    )
    heading = tag("div", tag("h2", "Problems"), _filters(summary.problems), class_="problems-heading")
    return tag("section", heading, _scrollable(table, "Table of problems"), id="problems", class_="problems")


def _scrollable(content: Html, label: str) -> Html:
    return tag("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)


def _filters(problems: Sequence[ProblemSummary]) -> Html:
    states = list(dict.fromkeys(problem.state for problem in problems))
    if len(states) < 2:
        return Html()
    buttons = [
        tag("button", words, type="button", data_show=state, aria_pressed="true" if state == "all" else "false")
        for state, words in [("all", "all"), *((state, STATE_WORDS[state].rstrip(" ✓✗")) for state in states)]
    ]
    return tag("div", *buttons, class_="filters js", role="group", aria_label="Show problems", hidden=True)


def knows_golds(summary: RunSummary) -> bool:
    """Whether the table of problems has a column for the right answers."""
    return any(problem.record.gold is not None for problem in summary.problems)


def render_row(problem: ProblemSummary, has_gold: bool, link: Link = in_page) -> Html:
    """One problem's row of the table."""
    record, selection = problem.record, problem.record.selection
    name = tag("a", tag("bdi", shorten(record.problem.id, 60)), href=link(problem.number))
    excerpt = tag("span", render_excerpt(record.problem.statement, _MAX_EXCERPT_CHARS), class_="excerpt")
    num_for = 0 if selection is None or not problem.rests_on_votes else problem.votes.get(selection.answer, 0)
    pool_note = tag("span", "was in the pool", class_="quiet in-pool") if problem.lost_at_selection else ""
    gold = [] if not has_gold else [tag("td", shorten(record.gold or "—", 12), class_="gold")]
    cells = [
        tag("td", str(problem.number), class_="number"),
        tag("th", name, excerpt, scope="row", class_="words"),
        tag("td", "—" if selection is None else shorten(selection.answer, 12), class_="answer"),
        *gold,
        tag("td", badge(problem.state), " ", standing(problem.accepted), pool_note, class_="state"),
        tag("td", "—" if selection is None else f"{selection.confidence:.2f}", class_="num wide"),
        tag("td", f"{num_for} of {problem.num_solutions}", class_="num"),
        tag("td", f"{problem.num_tokens:,}", class_="num wide"),
        tag("td", "—" if problem.elapsed_s is None else format_s(problem.elapsed_s), class_="num wide"),
        tag("td", shorten(record.stop_reason or "—", 90), class_="ended wide"),
    ]
    return tag("tr", *cells, id=f"row-{problem.number}", data_state=problem.state)


def _budget_s(run: RunRecord) -> float | None:
    value = run.config.get("budget_s")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 < value < 1e9 else None


def format_date(wall_time: float) -> str:
    """Seconds since the epoch for a person: "25 November 2026, 18:40 UTC"."""
    if not 0 < wall_time < 1e11:
        return "date unknown"
    return datetime.fromtimestamp(wall_time, UTC).strftime("%-d %B %Y, %H:%M UTC")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
