"""A run's answers as a piece of HTML that shows in a notebook's cell: one table, and the way to the whole report.

Knows that it stands in somebody else's page: its styles apply to nothing else, and it brings in nothing from outside.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.core.record import RunRecord
from mathlete.report.markup import Html, join, tag
from mathlete.report.problem import standing
from mathlete.report.prose import render_excerpt
from mathlete.report.summary import ProblemSummary, RunSummary, summarise_run
from mathlete.report.timeline import format_s

MAX_ROWS = 200  # of a cell, and of a terminal
_MAX_STATEMENT_CHARS = 160
_MAX_ANSWERS = 4  # whose votes are told
_STYLE = """
.mathlete-run table { border-collapse: collapse; margin: .3em 0; }
.mathlete-run th, .mathlete-run td { text-align: left; vertical-align: top; padding: .25em .8em .25em 0; }
.mathlete-run .number { text-align: right; font-variant-numeric: tabular-nums; }
.mathlete-run .statement { max-width: 42em; }
.mathlete-run .note { white-space: pre-line; }
.mathlete-run .right { color: #0b6e4f; } .mathlete-run .wrong { color: #a8321f; }
"""


def render_answers(run: RunRecord, report: str | None = None, notes: Sequence[str] = ()) -> Html:
    """The answers of a run with their problems, votes and confidence.

    Args:
        run: the run; outlines (attempts without turns) do.
        report: where the whole report is, for a link; None for no link.
        notes: what else is to be told, a paragraph each.
    """
    summary = summarise_run(run)
    shown, num_more = summary.problems[:MAX_ROWS], len(summary.problems[MAX_ROWS:])
    has_gold = any(problem.record.gold is not None for problem in summary.problems)
    has_standing = any(problem.accepted is not None for problem in summary.problems)
    names = ["id", "problem", "answer", *(["label"] if has_gold else []), *(["standing"] if has_standing else [])]
    heads = [_head(name) for name in (*names, "confidence", "votes", "why it ended")]
    rows = [_row(problem, has_gold, has_standing) for problem in shown]
    parts = [tag("style", Html(_STYLE)), tag("p", join(_facts(run, summary), " · "))]
    parts.append(tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows)))
    parts += [tag("p", note, class_="note") for note in notes]
    if num_more:
        parts.append(tag("p", f"… and {num_more:,} more problems"))
    if report is not None:
        parts.append(tag("p", tag("a", "The whole report", href=report, target="_blank", rel="noopener")))
    return tag("div", *parts, class_="mathlete-run")


def render_framed(document: str, height_px: int) -> Html:
    """A whole document in a frame of its own, which reaches neither the page around it nor anything outside."""
    return tag(
        "iframe",
        srcdoc=document,
        sandbox="allow-scripts",
        title="Mathlete's report",
        style=f"width: 100%; height: {height_px}px; border: 1px solid #8888",
    )


def _facts(run: RunRecord, summary: RunSummary) -> list[str]:
    num = len(summary.problems)
    result = (
        f"{summary.num_right} of {summary.num_graded} right"
        if summary.num_graded
        else f"{num:,} problem{'' if num == 1 else 's'}"
    )
    standings = summary.num_accepted + summary.num_offered
    accepted = [f"{summary.num_accepted} accepted, {summary.num_offered} offered"] if standings else []
    ended = {"complete": [], None: ["cut off, or still going on"]}.get(run.finished, [f"ended by: {run.finished}"])
    return [result, *accepted, f"{summary.num_tokens:,} tokens", format_s(run.elapsed_s), *ended]


def _head(name: str) -> Html:
    return tag("th", name, scope="col", class_="number" if name in ("answer", "label", "confidence") else None)


def _row(problem: ProblemSummary, has_gold: bool, has_standing: bool) -> Html:
    record = problem.record
    selection = record.selection
    votes = ", ".join(f"{answer} ×{count}" for answer, count in list(problem.votes.items())[:_MAX_ANSWERS])
    cells = [
        tag("th", record.problem.id, scope="row"),
        tag("td", render_excerpt(record.problem.statement, _MAX_STATEMENT_CHARS), class_="statement"),
        tag("td", tag("b", selection.answer if selection else "–"), class_=f"number {problem.state}"),
    ]
    if has_gold:
        cells.append(tag("td", record.gold or "", class_="number"))
    if has_standing:
        cells.append(tag("td", standing(problem.accepted)))
    cells += [
        tag("td", f"{selection.confidence:.0%}" if selection else "", class_="number"),
        tag("td", votes + (", …" if len(problem.votes) > _MAX_ANSWERS else "") or "no votes"),
        tag("td", record.stop_reason or problem.state),
    ]
    return tag("tr", *cells)
