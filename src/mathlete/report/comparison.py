"""The report on several runs of the same problems: one HTML document that needs nothing beside itself.

Knows a comparison and how its page is put together. Does not read runs from disk. Looks at no turn of an attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mathlete.core.record import RunRecord
from mathlete.report.chart import Axis, Point, round_ticks, show_count, show_time, time_ticks
from mathlete.report.comparison_figures import (
    Cell,
    ComparedRun,
    Comparison,
    Difference,
    Row,
    Verdict,
    compare,
)
from mathlete.report.course import at_k, course_of, thin_out
from mathlete.report.markup import Html, join, shorten, tag
from mathlete.report.page import render_document
from mathlete.report.price_picture import PricedRun, colour_of, draw_prices
from mathlete.report.prose import render_excerpt, render_statement
from mathlete.report.summary import ProblemSummary
from mathlete.report.timeline import format_s
from mathlete.report.vote import draw_vote

MAX_SHOWN = 200  # problems on which runs differ that are shown in full; all are in the table
_MAX_EXCERPT_CHARS = 70
_MAX_POINTS = 160  # of a line: its picture is not wider

# From a run's place and a problem's number in it (None: the whole run) to where its own report shows it, if anywhere.
RunLink = Callable[[int, int | None], str | None]

_WORDS: dict[Verdict, str] = {
    "right": "right ✓",
    "wrong": "wrong ✗",
    "answered": "",
    "open": "no answer chosen",
    "absent": "not in this run",
}


def no_link(run: int, number: int | None) -> None:
    """For a comparison whose runs have no reports to go to."""


def render_comparison(runs: Sequence[tuple[str, RunRecord]], link: RunLink = no_link) -> str:
    """The comparison of two or more runs as a complete HTML document. Pure; never raises on hostile text.

    Args:
        runs: each with what a person calls it; the first is the baseline. Turns of attempts may be missing.
        link: where a run, or a problem of it, is shown by itself.

    Raises:
        ValueError: there are fewer than two runs.
    """
    return render_document(f"Mathlete: {len(runs)} runs compared", render_comparison_body(runs, link))


def render_comparison_body(runs: Sequence[tuple[str, RunRecord]], link: RunLink = no_link) -> Html:
    """What stands in the document's body; as for `render_comparison`."""
    comparison = compare(runs)
    shown = [row for row in comparison.rows if row.kind != "same"][:MAX_SHOWN]
    anchors = {row.problem_id: f"differs-{number}" for number, row in enumerate(shown, 1)}
    return join(
        [
            _header(comparison),
            _runs_table(comparison, link),
            _differences(comparison),
            _prices(comparison),
            _problems_table(comparison, anchors, link),
            tag("main", *(_section(comparison, row, anchors[row.problem_id], link) for row in shown)),
        ]
    )


def _header(comparison: Comparison) -> Html:
    kinds = [row.kind for row in comparison.rows]
    words = [f"{len(kinds)} problems"]
    if comparison.knows_golds:
        words.append(f"{kinds.count('flip')} that some get right and others wrong")
    words.append(f"{kinds.count('differs')} more with different answers")
    notes = []
    if comparison.num_mismatched:
        notes.append(
            f"{comparison.num_mismatched} ids name different problems in different runs; "
            "there, only runs that were asked the same as the first are compared."
        )
    return tag(
        "header",
        tag("p", "Mathlete", class_="brand"),
        tag("h1", f"{len(comparison.runs)} runs compared"),
        tag("p", f"{', '.join(words)}.", class_="ending"),
        *(tag("p", note, class_="quiet") for note in notes),
        class_="page-header",
    )


def _runs_table(comparison: Comparison, link: RunLink) -> Html:
    columns = ["Run", "Right", "Accuracy, 95 %", "Answered", "Attempts", "Tokens a problem", "Time", "Model"]
    rows = []
    for index, item in enumerate(comparison.runs):
        num_problems = max(1, len(item.summary.problems))
        ending = "" if item.run.finished else ", unfinished"
        rows.append(
            tag(
                "tr",
                tag("th", _mark(item, index), " ", _linked(item.label, link(index, None)), scope="row"),
                tag("td", f"{item.num_right} of {item.num_graded}" if item.num_graded else "—", class_="num"),
                tag("td", _accuracy(item), class_="num"),
                tag("td", f"{item.summary.num_answered} of {len(item.summary.problems)}", class_="num"),
                tag("td", f"{item.summary.num_attempts:,}", class_="num"),
                tag("td", f"{item.summary.num_tokens / num_problems:,.0f}", class_="num"),
                tag("td", format_s(item.run.elapsed_s), ending, class_="num"),
                tag("td", shorten(str(item.run.config.get("model", "unknown")), 60)),
            )
        )
    return _section_with_table("Runs", "Runs of this comparison", columns, rows, "runs")


def _accuracy(item: ComparedRun) -> str:
    if item.accuracy is None:
        return "—"
    return f"{item.accuracy.value:.1%} [{item.accuracy.low:.1%}, {item.accuracy.high:.1%}]"


def _differences(comparison: Comparison) -> Html:
    if not comparison.differences:
        reason = "share no graded problem" if comparison.knows_golds else "have no gold answers"
        words = f"The runs {reason}, so nothing can be said on which is better."
        return tag("section", tag("h2", "Differences"), tag("p", words, class_="quiet"), class_="compared")
    baseline = comparison.runs[0].letter
    columns = ["", "Problems", "Difference in points, 95 %", "Gained", "Lost", "McNemar's p", "In words"]
    rows = [_difference_row(item, baseline) for item in comparison.differences]
    note = (
        "Paired, over the problems that both runs have. Intervals by bootstrap, in which problems of one group are "
        "drawn together; p of the exact test on the problems that only one of the two gets right."
    )
    table = _section_with_table("Differences", "Paired differences to the first run", columns, rows, "differences")
    return join([table, tag("p", note, class_="quiet note")])


def _difference_row(item: Difference, baseline: str) -> Html:
    scores = item.scores
    change = scores.difference
    interval = f"{100 * change.value:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
    return tag(
        "tr",
        tag("th", f"{item.letter} − {baseline}", scope="row"),
        tag("td", str(scores.num_problems), class_="num"),
        tag("td", interval, class_="num"),
        tag("td", str(scores.mcnemar.only_second), class_="num"),
        tag("td", str(scores.mcnemar.only_first), class_="num"),
        tag("td", f"{scores.mcnemar.p_value:.3g}", class_="num"),
        tag("td", _in_words(item, baseline)),
    )


def _in_words(item: Difference, baseline: str) -> str:
    scores = item.scores
    if scores.better is not None:
        better, worse = (item.letter, baseline) if scores.better == "second" else (baseline, item.letter)
        return f"{better} is better than {worse}."
    if scores.mcnemar.only_first == scores.mcnemar.only_second == 0:
        return "Both are right on the same problems."
    luck = "No difference that luck would not explain."
    if scores.detectable is None:  # every problem changed in the same way, which leaves no spread to reckon with
        return luck
    shown = f"{100 * scores.detectable:.1f} points or more in four of five comparisons"
    return f"{luck} So many problems show one of {shown}."


def _prices(comparison: Comparison) -> Html:
    """Accuracy against tokens and against the clock; without golds there is no accuracy."""
    tokens, seconds = [], []
    for item in comparison.runs:
        if item.accuracy is None:
            continue
        by_k = tuple((figure.num_tokens, figure.vote.value) for figure in at_k(item.run))
        tokens.append(_priced(item, by_k, item.summary.num_tokens / len(item.summary.problems)))
        course = course_of(item.run)
        standings = () if course is None else thin_out(course.standings, _MAX_POINTS)
        by_clock = tuple((standing.at_s, standing.right) for standing in standings)
        seconds.append(_priced(item, by_clock, item.run.elapsed_s))
    if not tokens:
        return Html()
    legend = [tag("li", _mark(item, index), " ", item.label) for index, item in enumerate(comparison.runs)]
    most_tokens, most_s = _highest_price(tokens), _highest_price(seconds)
    token_axis = Axis(0.0, most_tokens, round_ticks(most_tokens), show_count)
    time_axis = Axis(0.0, most_s, time_ticks(most_s), show_time)
    pictures = [
        _figure(
            draw_prices(tokens, token_axis, "Accuracy against tokens a problem."),
            "Accuracy against tokens a problem. Discs are the runs as they were, checks and later rounds included, "
            "with 95 % intervals; lines are what a plain vote of 1, 2, 3, … attempts is worth.",
        ),
        _figure(
            draw_prices(seconds, time_axis, "Accuracy against the run's clock.", steps=True),
            "Share of the graded problems whose right answer was handed in by then.",
        ),
    ]
    return tag(
        "section",
        tag("h2", "Accuracy and its price"),
        tag("ul", *legend, class_="legend"),
        tag("div", *pictures, class_="pictures"),
        class_="compared",
    )


def _priced(item: ComparedRun, points: tuple[Point, ...], price: float) -> PricedRun:
    assert item.accuracy is not None, "asked for runs that can be graded"
    return PricedRun(item.letter, points, (price, item.accuracy.value), item.accuracy.low, item.accuracy.high)


def _highest_price(runs: Sequence[PricedRun]) -> float:
    return max(price for run in runs for price, _ in (*run.points, run.end)) or 1.0


def _figure(picture: Html, caption: str) -> Html:
    return tag("figure", picture, tag("figcaption", caption))


def _problems_table(comparison: Comparison, anchors: dict[str, str], link: RunLink) -> Html:
    gold = ["Right answer"] if comparison.knows_golds else []
    columns = ["Problem", *gold, *(f"{item.letter}: {shorten(item.label, 24)}" for item in comparison.runs)]
    titles = {
        "flip": "Right in some runs, wrong in others",
        "differs": "Different answers",
        "same": "The same in all runs",
    }
    bodies = []
    for kind, title in titles.items():
        rows = [row for row in comparison.rows if row.kind == kind]
        if rows:
            heading = tag("tr", tag("th", f"{title}: {len(rows)}", scope="rowgroup", colspan=len(columns)))
            body = [_problem_row(row, bool(gold), anchors.get(row.problem_id), link) for row in rows]
            bodies.append(tag("tbody", heading, *body, class_=kind))
    table = tag(
        "table",
        tag("caption", "Problems by run", class_="hidden"),
        tag("thead", tag("tr", *(tag("th", name, scope="col") for name in columns))),
        *bodies,
    )
    heading, content = tag("h2", "Problems"), _scrollable(table, "Problems by run")
    return tag("section", heading, content, id="problems", class_="compared")


def _problem_row(row: Row, with_gold: bool, anchor: str | None, link: RunLink) -> Html:
    name = _linked(shorten(row.problem_id, 60), None if anchor is None else f"#{anchor}")
    excerpt = tag("span", render_excerpt(row.statement, _MAX_EXCERPT_CHARS), class_="excerpt")
    gold = [tag("td", shorten(row.gold or "—", 16))] if with_gold else []
    cells = [tag("td", *_cell(cell, index, link), class_=cell.verdict) for index, cell in enumerate(row.cells)]
    return tag("tr", tag("th", name, excerpt, scope="row", class_="words"), *gold, *cells)


def _cell(cell: Cell, index: int, link: RunLink) -> list[Html]:
    href = None if cell.number is None else link(index, cell.number)
    words = _WORDS[cell.verdict]
    parts = []
    if cell.answer is not None:
        parts.append(tag("span", _linked(shorten(cell.answer, 16), href), class_="answer"))
    if words:
        parts.append(tag("span", words, class_=f"badge {cell.verdict}"))
    if cell.answer is not None:
        pool = ", was in the pool" if cell.verdict == "wrong" and cell.in_pool else ""
        parts.append(tag("span", f"{cell.votes} of {cell.num_solutions}{pool}", class_="quiet votes"))
    return [join(parts, " ")]


def _section(comparison: Comparison, row: Row, anchor: str, link: RunLink) -> Html:
    """A problem on which the runs differ: what was asked, and the vote of each run beside the others'."""
    gold = tag("p", f"The right answer is {shorten(row.gold, 60)}.") if row.gold is not None else ""
    columns = []
    for index, (item, cell) in enumerate(zip(comparison.runs, row.cells, strict=True)):
        heading = tag("h3", _mark(item, index), " ", item.label)
        columns.append(tag("div", heading, _outcome(item, row, cell, index, link), class_="compared-run"))
    return tag(
        "section",
        tag("h2", tag("bdi", shorten(row.problem_id, 120))),
        tag("div", render_statement(row.statement), class_="statement"),
        gold,
        tag("div", *columns, class_="compared-runs"),
        tag("p", tag("a", "Back to all problems", href="#problems"), class_="back"),
        id=anchor,
        class_="problem",
    )


def _outcome(item: ComparedRun, row: Row, cell: Cell, index: int, link: RunLink) -> Html:
    if cell.number is None:
        return tag("p", _WORDS["absent"], class_="quiet")
    summary: ProblemSummary = item.summary.problems[cell.number - 1]
    facts = [f"{cell.num_solutions} attempts", f"{cell.num_tokens:,} tokens"]
    if cell.elapsed_s is not None:
        facts.append(format_s(cell.elapsed_s))
    selection = summary.record.selection
    reasons = [] if selection is None else [tag("li", shorten(reason, 300)) for reason in selection.reasons[:4]]
    href = link(index, cell.number)
    return join(
        [
            tag("p", *_cell(cell, index, no_link)),
            tag("p", " · ".join(facts), class_="quiet"),
            draw_vote(summary),
            tag("ul", *reasons, class_="reasons") if reasons else "",
            tag("p", tag("a", "All of its attempts", href=href)) if href else "",
        ]
    )


def _mark(item: ComparedRun, index: int) -> Html:
    return tag("span", item.letter, class_=f"run-mark {colour_of(index)}")


def _linked(text: str, href: str | None) -> Html:
    shown = tag("bdi", text)
    return shown if href is None else tag("a", shown, href=href)


def _section_with_table(title: str, caption: str, columns: Sequence[str], rows: Sequence[Html], css_class: str) -> Html:
    head = tag("tr", *(tag("th", name, scope="col") if name else tag("td") for name in columns))
    table = tag("table", tag("caption", caption, class_="hidden"), tag("thead", head), tag("tbody", *rows))
    return tag("section", tag("h2", title), _scrollable(table, caption), class_=f"compared {css_class}")


def _scrollable(content: Html, label: str) -> Html:
    return tag("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)
