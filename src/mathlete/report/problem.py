"""The section of one problem: statement, answer and why, vote, attempts.

Knows summaries and views that were prepared for it. Does not read the run.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.core.selection import Selection
from mathlete.report.attempt import AttemptView, render_attempt
from mathlete.report.markup import Html, join, shorten, tag
from mathlete.report.prose import render_statement
from mathlete.report.summary import ProblemSummary, State
from mathlete.report.timeline import format_s
from mathlete.report.vote import describe_silent, draw_vote

MAX_ATTEMPTS_UNFOLDED = 16
STATE_WORDS: dict[State, str] = {
    "right": "right ✓",
    "wrong": "wrong ✗",
    "answered": "answered",
    "fallback": "fallback",
    "running": "unfinished",
    "waiting": "not started",
}


def render_problem(problem: ProblemSummary, views: Sequence[AttemptView], ceiling: float) -> Html:
    """The section of one problem; `ceiling` is the entropy at the top of its curves, nats."""
    record = problem.record
    heading = tag(
        "h2", tag("span", str(problem.number), class_="number"), " ", tag("bdi", shorten(record.problem.id, 120))
    )
    return tag(
        "section",
        tag("header", heading, badge(problem.state)),
        tag("p", record.problem.source, class_="source") if record.problem.source else "",
        tag("div", render_statement(record.problem.statement), class_="statement"),
        tag("div", _answer(problem), _vote(problem), class_="outcome-grid"),
        _attempts(problem, views, ceiling),
        tag("p", tag("a", "Back to all problems", href="#problems"), class_="back"),
        id=f"problem-{problem.number}",
        class_=f"problem {problem.state}",
        data_state=problem.state,
    )


def badge(state: State) -> Html:
    """The state as a small label; said in words, never by colour alone."""
    return tag("span", STATE_WORDS[state], class_=f"badge {state}")


def _answer(problem: ProblemSummary) -> Html:
    record = problem.record
    if record.selection is None:
        words = "Not opened before the run ended." if problem.state == "waiting" else "No answer was chosen yet."
        return tag("div", tag("h3", "Answer"), tag("p", words, class_="quiet"))
    parts = [tag("h3", "Answer"), tag("p", shorten(record.selection.answer, 200), class_="chosen-answer")]
    if record.gold is not None:
        parts.append(_against_gold(problem, record.gold))
    parts.append(_why(record.selection, problem))
    return tag("div", *parts)


def _against_gold(problem: ProblemSummary, gold: str) -> Html:
    num_attempts = len(problem.record.attempts)
    if problem.state == "right":
        words = "This is the right answer." if problem.rests_on_votes else "Right, though by luck: it is the fallback."
    elif problem.lost_at_selection:
        support = f"{problem.gold_votes} of {num_attempts} attempts gave it"
        words = f"The right answer, {shorten(gold, 60)}, was in the pool: {support}."
    else:
        words = f"The right answer is {shorten(gold, 60)}; no attempt gave it."
    return tag("p", words, class_=f"against-gold {problem.state}")


def _why(selection: Selection, problem: ProblemSummary) -> Html:
    reasons = [tag("li", shorten(reason, 600)) for reason in selection.reasons]
    facts = [("rule", selection.rule), ("confidence", f"{selection.confidence:.2f}")]
    facts += [(name.removeprefix("num_").replace("_", " "), f"{value:.4g}") for name, value in selection.terms.items()]
    facts += [
        (f"weight of {shorten(cluster.answer, 20)}", f"{cluster.weight:.4g}")
        for cluster in selection.clusters[:5]
        if cluster.weight != len(cluster.attempt_ids)
    ]
    if problem.record.stop_reason:
        facts.append(("ended", problem.record.stop_reason))
    return join(
        [
            tag("h3", "Why"),
            tag("ul", *reasons, class_="reasons") if reasons else tag("p", "No reason was recorded.", class_="quiet"),
            tag(
                "dl",
                *(tag("div", tag("dt", name), tag("dd", shorten(value, 200))) for name, value in facts),
                class_="facts",
            ),
        ]
    )


def _vote(problem: ProblemSummary) -> Html:
    picture = draw_vote(problem) or tag("p", "Nobody has voted.", class_="quiet")
    silent = tag("p", describe_silent(problem.silent), class_="quiet silent-note") if problem.silent else ""
    return tag("div", tag("h3", "Vote"), picture, silent)


def _attempts(problem: ProblemSummary, views: Sequence[AttemptView], ceiling: float) -> Html:
    if not views:
        return join([tag("h3", "Attempts"), tag("p", "No attempt was made.", class_="quiet")])
    facts = [f"{len(views)}", f"{problem.num_tokens:,} tokens"]
    if problem.elapsed_s is not None:
        facts.append(format_s(problem.elapsed_s))
    heading = tag("h3", "Attempts ", tag("span", " · ".join(facts), class_="quiet"))
    unfold = tag("button", "Open all", type="button", class_="unfold js", hidden=True)
    blocks = join(render_attempt(view, problem.record.gold, ceiling) for view in views)
    if len(views) > MAX_ATTEMPTS_UNFOLDED:
        blocks = tag("details", tag("summary", f"Show all {len(views)} attempts"), blocks, class_="many")
    return join([tag("div", heading, unfold, class_="attempts-heading"), blocks])
