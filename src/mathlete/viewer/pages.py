"""The pages of the viewer, and the parts of them that are pushed when a run goes on.

Knows snapshots of runs and how the report draws them. Does not know HTTP. A *part* is an element of a page with an id;
what is pushed are parts, drawn by the functions that drew the page, so a pushed page is the page that a reload gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from urllib.parse import quote, urlencode

from mathlete.core.record import ProblemRecord, RunRecord
from mathlete.lab.post_mortem import post_mortem
from mathlete.report.confidence import shared_ceiling
from mathlete.report.course_section import render_course
from mathlete.report.markup import Html, join, shorten, tag
from mathlete.report.overview import knows_golds, overview_parts, render_row, render_table, render_title
from mathlete.report.page import SKIP_LINK, attempt_views, page_policy, render_document
from mathlete.report.post_mortem import render_post_mortem
from mathlete.report.problem import badge, render_problem
from mathlete.report.summary import ProblemSummary, RunSummary, summarise_problem, summarise_run
from mathlete.viewer.watching import Snapshot, Status

STATUS_WORDS: Mapping[Status, str] = {
    "waiting": "Nothing is recorded yet; this page fills when the run begins.",
    "reading": "Reading the attempts of a large store; this page fills when that is done.",
    "running": "Running; this page follows.",
    "cut_off": "Cut off: no process works on this run. It can be resumed; this page follows.",
    "over": "Over.",
    "unreadable": "The run can no longer be read.",
}
MAX_WITH_DRAWS = 5_000  # attempts of a run whose page tells what k of them are worth; for more that takes too long
LIVE_SCRIPT = Html(resources.files("mathlete.viewer").joinpath("live.js").read_text(encoding="utf-8"))
POLICY = f"{page_policy(LIVE_SCRIPT)}; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the pages of one run are served.

    Attributes:
        key: names the run among those that are served.
        has_siblings: whether other runs are served beside it.
    """

    key: str
    has_siblings: bool = False

    @property
    def front(self) -> str:
        """The run's front page."""
        return f"/runs/{quote(self.key, safe='')}"

    def problem(self, number: int) -> str:
        """The page of a problem."""
        return f"{self.front}/problems/{number}"

    def events(self, snapshot: Snapshot, shell: str = "", number: int | None = None) -> str:
        """Where what is newer than a page is pushed."""
        asked = {"seen": f"{snapshot.epoch}-{snapshot.place}", "shell": shell}
        if number is not None:
            asked["problem"] = str(number)
        return f"{self.front}/events?{urlencode(asked)}"


def front_page(address: Address, snapshot: Snapshot) -> str:
    """The run's front page: figures, time line, all problems; without what is written in attempts."""
    if snapshot.run is None:
        live, why = status_part(snapshot, address.events(snapshot)), tag("p", snapshot.message, class_="quiet")
        body = join([_siblings(address), live, tag("h1", shorten(address.key, 120)), why])
        return render_document(f"Mathlete: {shorten(address.key, 60)}", body, LIVE_SCRIPT)
    summary = summarise_run(snapshot.run)
    live = status_part(snapshot, address.events(snapshot, shell_of(summary)))
    if snapshot.status == "reading":
        parts = [overview_parts(snapshot.run, summary)["header"], _answers(address, summary)]
    else:
        parts = [*front_parts(address, snapshot.run, summary).values(), table_part(address, summary)]
    body = join([SKIP_LINK, _siblings(address), live, tag("main", *parts)])
    return render_document(render_title(snapshot.run), body, LIVE_SCRIPT)


def _answers(address: Address, summary: RunSummary) -> Html:
    """What can be told of the problems before their attempts are read."""
    rows = [
        tag(
            "tr",
            tag("td", str(item.number), class_="number"),
            tag("th", tag("a", tag("bdi", item.record.problem.id), href=address.problem(item.number)), scope="row"),
            tag("td", "—" if item.record.selection is None else shorten(item.record.selection.answer, 12)),
            tag("td", badge(item.state)),
        )
        for item in summary.problems
    ]
    names = (tag("th", name, scope="col") for name in ("Number", "Problem", "Answer", "Result"))
    table = tag("table", tag("thead", tag("tr", *names)), tag("tbody", *rows))
    return tag("section", tag("h2", "Problems"), table, id="problems", class_="problems")


def front_parts(address: Address, run: RunRecord, summary: RunSummary) -> dict[str, Html]:
    """What stands above the table, as parts by id."""
    drawn = overview_parts(run, summary, address.problem) | {
        "course": render_course(run, with_draws=summary.num_attempts <= MAX_WITH_DRAWS),
        "failures": render_post_mortem(post_mortem(run), address.problem),
    }
    return {f"part-{name}": tag("div", html, id=f"part-{name}") for name, html in drawn.items()}


def table_part(address: Address, summary: RunSummary) -> Html:
    """The table of problems; its rows are parts too."""
    return tag("div", render_table(summary, address.problem), id="part-table")


def row_parts(address: Address, summary: RunSummary, problems: Sequence[ProblemSummary]) -> dict[str, Html]:
    """Rows of the table, as parts by id."""
    has_gold = knows_golds(summary)
    return {f"row-{item.number}": render_row(item, has_gold, address.problem) for item in problems}


def shell_of(summary: RunSummary) -> str:
    """What the table looks like apart from its rows: when this changes, rows alone are not enough."""
    states = dict.fromkeys(problem.state for problem in summary.problems)
    return f"{int(knows_golds(summary))}.{'.'.join(states)}"


def status_part(snapshot: Snapshot, events: str | None = None) -> Html:
    """How the run stands; as part of a page it also says where `events` are pushed."""
    words = snapshot.message if snapshot.status == "unreadable" else STATUS_WORDS[snapshot.status]
    return tag("p", words, id="live", class_=f"live {snapshot.status}", role="status", data_events=events)


def problem_page(address: Address, snapshot: Snapshot, number: int, record: ProblemRecord) -> str:
    """One problem with all of its attempts."""
    run = snapshot.run or RunRecord({}, {})
    links = [tag("a", "All problems", href=f"{address.front}#row-{number}")]
    if number > 1:
        links.append(tag("a", "Previous", href=address.problem(number - 1), rel="prev"))
    if number < len(run.problems):
        links.append(tag("a", "Next", href=address.problem(number + 1), rel="next"))
    live = status_part(snapshot, address.events(snapshot, number=number))
    (section,) = problem_parts(address, run, number, record).values()
    body = join([tag("nav", *links, class_="steps", aria_label="Problems"), live, tag("main", section)])
    return render_document(f"{shorten(record.problem.id, 60)}: Mathlete", body, LIVE_SCRIPT)


def problem_parts(address: Address, run: RunRecord, number: int, record: ProblemRecord) -> dict[str, Html]:
    """The section of a problem, as a part."""
    summary = summarise_problem(number, record, run.elapsed_s)
    (views,) = attempt_views([summary])
    ceiling = shared_ceiling([view.curve for view in views if view.curve is not None])
    failed = [replace(item, number=number) for item in post_mortem(replace(run, problems={"": record})).problems]
    section = render_problem(summary, views, ceiling, f"{address.front}#row-{number}", failed[0] if failed else None)
    return {f"problem-{number}": section}


def plain_page(title: str, message: str, home: str | None = "/") -> str:
    """A page with a few words, for what cannot be shown."""
    link = tag("p", tag("a", "To the runs", href=home)) if home else ""
    return render_document(f"Mathlete: {title}", join([tag("h1", title), tag("p", message, class_="ending"), link]))


def _siblings(address: Address) -> Html:
    if not address.has_siblings:
        return Html()
    return tag("nav", tag("a", "All runs", href="/"), class_="steps", aria_label="Runs")
