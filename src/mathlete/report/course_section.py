"""The section on accuracy and its price: over the tokens, the seconds and the attempts of a run, pictures and tables.

Knows courses and figures at k, and how to put them on a page. Does not read attempts.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.core.record import RunRecord
from mathlete.lab.metrics import Estimate
from mathlete.report.chart import Axis, Line, draw_lines, round_ticks, show_count, show_time, time_ticks
from mathlete.report.course import AtK, Course, Standing, at_k, course_of, thin_out
from mathlete.report.markup import Html, join, tag
from mathlete.report.timeline import format_s

_MAX_POINTS = 160  # of a line: its picture is not wider
_MAX_ROWS = 13  # of a table


def render_course(run: RunRecord, *, with_draws: bool = True) -> Html:
    """The section; empty for a run that has not come far enough to have anything to show.

    Args:
        run: an outline does.
        with_draws: whether to tell what k attempts are worth, which takes seconds for ten thousand attempts.
    """
    course, figures = course_of(run), at_k(run) if with_draws else ()
    pictures, tables = [], []
    if course is not None:
        standings = thin_out(course.standings, _MAX_POINTS)
        pictures += [_over_tokens(course, standings), _over_seconds(course, standings)]
        tables.append(_course_table(course))
    if len(figures) > 1:
        pictures.append(_over_attempts(figures))
        tables.append(_at_k_table(figures))
    if not pictures:
        return Html()
    behind = tag("details", tag("summary", "The same as tables"), *tables, class_="tables")
    heading = "Accuracy and its price" if course is None or course.graded else "Answers and their price"
    return tag(
        "section", tag("h2", heading), tag("div", *pictures, class_="pictures"), behind, class_="course", id="accuracy"
    )


def _over_tokens(course: Course, standings: Sequence[Standing]) -> Html:
    most = float(standings[-1].num_tokens)
    axis = Axis(0.0, most, round_ticks(most), show_count)
    lines = _lines(course, [(float(item.num_tokens), item) for item in standings])
    return _figure(
        draw_lines(lines, axis, f"{_shares(course)} over the tokens that the run had spent."),
        "By tokens",
        f"{_shares(course)}; by the tokens of the attempts and checks that had finished.",
    )


def _over_seconds(course: Course, standings: Sequence[Standing]) -> Html:
    axis = Axis(0.0, standings[-1].at_s, time_ticks(standings[-1].at_s), show_time)
    lines = _lines(course, [(item.at_s, item) for item in standings])
    return _figure(
        draw_lines(lines, axis, f"{_shares(course)} over the run's seconds."),
        "By time",
        "The same by the run's clock.",
    )


def _lines(course: Course, points: Sequence[tuple[float, Standing]]) -> list[Line]:
    handed_in = tuple((where, item.right) for where, item in points)
    if not course.graded:
        return [Line("answered", "first", handed_in, steps=True)]
    return [
        Line("handed in", "first", handed_in, steps=True),
        Line("vote so far", "second", tuple((where, item.vote) for where, item in points), steps=True),
        Line("in the pool", "third", tuple((where, item.pool) for where, item in points), steps=True),
    ]


def _shares(course: Course) -> str:
    if not course.graded:
        return f"Share of {course.num_problems} problems with an answer"
    what = "whose right answer was handed in, led the vote, was in the pool"
    return f"Share of {course.num_problems} graded problems {what}"


def _over_attempts(figures: Sequence[AtK]) -> Html:
    most = figures[-1].k
    step = -(-most // 8)
    ticks = (1.0, *(float(k) for k in range(max(2, step), most + 1, step)))
    lines = [
        _at_k_line("vote of k", "first", [(item.k, item.vote) for item in figures]),
        _at_k_line("any of k", "third", [(item.k, item.any_right) for item in figures]),
    ]
    picture = draw_lines(lines, Axis(1.0, float(most), ticks, "{:g}".format), "Accuracy of k attempts.")
    return _figure(
        picture,
        "By attempts",
        "What k attempts a problem are worth (majority@k and pass@k, means over all draws of k), with 95 % intervals "
        f"by bootstrap over problems.{_short(figures)}",
    )


def _at_k_line(name: str, kind: str, figures: Sequence[tuple[int, Estimate]]) -> Line:
    return Line(
        name,
        kind,
        tuple((float(k), estimate.value) for k, estimate in figures),
        tuple((estimate.low, estimate.high) for _, estimate in figures),
    )


def _short(figures: Sequence[AtK]) -> str:
    if not figures[-1].num_short:
        return ""
    return f" {figures[-1].num_short:,} problems have fewer than {figures[-1].k} attempts and count with all they have."


def _figure(picture: Html, name: str, caption: str) -> Html:
    return tag("figure", tag("h3", name), picture, tag("figcaption", caption))


def _course_table(course: Course) -> Html:
    names = (
        ["Time", "Tokens", "Handed in", "Vote so far", "In the pool"]
        if course.graded
        else ["Time", "Tokens", "Answered"]
    )
    rows = []
    for item in thin_out(course.standings, _MAX_ROWS):
        shares = (item.right, item.vote, item.pool) if course.graded else (item.right,)
        rows.append([format_s(item.at_s), f"{item.num_tokens:,}", *(f"{share:.1%}" for share in shares)])
    return _table(_shares(course), names, rows)


def _at_k_table(figures: Sequence[AtK]) -> Html:
    shown = figures if len(figures) <= _MAX_ROWS else [item for item in figures if item.k & (item.k - 1) == 0]
    rows = [[str(item.k), f"{item.num_tokens:,.0f}", _interval(item.vote), _interval(item.any_right)] for item in shown]
    return _table("What k attempts a problem are worth", ["k", "Mean tokens", "majority@k", "pass@k"], rows)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


def _table(caption: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    head = tag("tr", *(tag("th", name, scope="col") for name in names))
    body = [tag("tr", tag("th", row[0], scope="row"), join(tag("td", cell) for cell in row[1:])) for row in rows]
    table = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", table, class_="scroll", role="region", aria_label=caption, tabindex=0)
