"""The section of one problem: statement, answer and why, vote, attempts.

Knows summaries and views that were prepared for it. Does not read the run.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.lab.post_mortem import FailedProblem
from mathlete.report.attempt import AttemptView, render_attempt
from mathlete.report.checks import render_findings
from mathlete.report.decisions import render_decisions
from mathlete.report.markup import Html, join, shorten, tag
from mathlete.report.post_mortem import cause_sentence
from mathlete.report.prose import render_statement
from mathlete.report.summary import ProblemSummary, State
from mathlete.report.timeline import format_s
from mathlete.report.vote import describe_silent, draw_vote
from mathlete.report.why import render_why

MAX_ATTEMPTS_UNFOLDED = 16
_ACCEPTED = "Independent attempts agree, and a check supports them"
_OFFERED = "The best that there is; no agreement that a check supports"
STATE_WORDS: dict[State, str] = {
    "right": "right ✓",
    "wrong": "wrong ✗",
    "answered": "answered",
    "fallback": "fallback",
    "running": "unfinished",
    "waiting": "not started",
}


def render_problem(
    problem: ProblemSummary,
    views: Sequence[AttemptView],
    ceiling: float,
    back: str = "#problems",
    failed: FailedProblem | None = None,
) -> Html:
    """The section of one problem.

    Args:
        problem: what came of it.
        views: its attempts.
        ceiling: the entropy at the top of its curves, nats.
        back: where all problems are shown.
        failed: why it failed, when it did.
    """
    record = problem.record
    heading = tag(
        "h2", tag("span", str(problem.number), class_="number"), " ", tag("bdi", shorten(record.problem.id, 120))
    )
    return tag(
        "section",
        tag("header", heading, badge(problem.state)),
        tag("p", record.problem.source, class_="source") if record.problem.source else "",
        tag("div", render_statement(record.problem.statement), class_="statement"),
        tag(
            "div",
            _answer(problem, failed, back),
            tag("div", _vote(problem), render_findings(problem)),
            class_="outcome-grid",
        ),
        _attempts(problem, views, ceiling),
        tag("p", tag("a", "Back to all problems", href=back), class_="back"),
        id=f"problem-{problem.number}",
        class_=f"problem {problem.state}",
        data_state=problem.state,
    )


def badge(state: State) -> Html:
    """The state as a small label; said in words, never by colour alone."""
    return tag("span", STATE_WORDS[state], class_=f"badge {state}")


def standing(accepted: bool | None) -> Html:
    """Whether an answer is accepted or offered, as a small label; empty where its rule does not ask."""
    if accepted is None:
        return Html()
    if accepted:
        return tag(
            "span", "accepted", class_="badge accepted", title="Independent attempts agree and a check supports it"
        )
    return tag("span", "offered", class_="badge offered", title="The best there is: no agreement that a check supports")


def _answer(problem: ProblemSummary, failed: FailedProblem | None, back: str) -> Html:
    record = problem.record
    if record.selection is None:
        words = "Not opened before the run ended." if problem.state == "waiting" else "No answer was chosen yet."
        return tag("div", tag("h3", "Answer"), tag("p", words, class_="quiet"), render_decisions(record))
    answer = tag("p", shorten(record.selection.answer, 200), " ", standing(problem.accepted), class_="chosen-answer")
    parts = [tag("h3", "Answer"), answer]
    if record.gold is not None:
        parts.append(_against_gold(problem, record.gold))
    if failed is not None:
        parts.append(cause_sentence(failed, back.partition("#")[0]))
    parts.append(render_why(record.selection, record.stop_reason))
    parts.append(render_decisions(record))
    return tag("div", *parts)


def _against_gold(problem: ProblemSummary, gold: str) -> Html:
    num_attempts = problem.num_solutions
    if problem.state == "right":
        words = "This is the right answer." if problem.rests_on_votes else "Right, though by luck: it is the fallback."
    elif problem.lost_at_selection:
        support = f"{problem.gold_votes} of {num_attempts} attempts gave it"
        words = f"The right answer, {shorten(gold, 60)}, was in the pool: {support}."
    else:
        words = f"The right answer is {shorten(gold, 60)}; no attempt gave it."
    return tag("p", words, class_=f"against-gold {problem.state}")


def _vote(problem: ProblemSummary) -> Html:
    picture = draw_vote(problem) or tag("p", "Nobody has voted.", class_="quiet")
    silent = tag("p", describe_silent(problem.silent), class_="quiet silent-note") if problem.silent else ""
    return join([tag("h3", "Vote"), picture, silent])


def _attempts(problem: ProblemSummary, views: Sequence[AttemptView], ceiling: float) -> Html:
    if not views:
        return join([tag("h3", "Attempts"), tag("p", "No attempt was made.", class_="quiet")])
    checks = [view for view in views if _is_check(view)]
    others = [view for view in views if not _is_check(view)]
    facts = [f"{len(others)}", f"{problem.num_tokens:,} tokens{' with the checks' if checks else ''}"]
    if problem.elapsed_s is not None:
        facts.append(format_s(problem.elapsed_s))
    parts = [_blocks("Attempts", facts, others, ceiling)] if others else []
    if checks:
        num_tokens = sum(view.attempt.num_tokens for view in checks if view.attempt is not None)
        facts = [f"{len(checks)}", f"{num_tokens:,} tokens"]
        parts.append(_blocks("Checks of answers", facts, checks, ceiling))
    return join(parts)


def _is_check(view: AttemptView) -> bool:
    return view.attempt is not None and view.attempt.is_check


def _blocks(name: str, facts: Sequence[str], views: Sequence[AttemptView], ceiling: float) -> Html:
    """A heading and the foldable blocks below it."""
    heading = tag("h3", f"{name} ", tag("span", " · ".join(facts), class_="quiet"))
    unfold = tag("button", "Open all", type="button", class_="unfold js", hidden=True)
    blocks = join(render_attempt(view, ceiling) for view in views)
    if len(views) > MAX_ATTEMPTS_UNFOLDED:
        blocks = tag("details", tag("summary", f"Show all {len(views)}"), blocks, class_="many")
    return tag("div", tag("div", heading, unfold, class_="attempts-heading"), blocks, class_="attempts")
