"""What checks found on answers: the evidence of one check in full, and of all checks on each leading answer.

Knows evidence. Does not know how much it counts for.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.core.attempt import Attempt
from mathlete.core.selection import Evidence, Verdict
from mathlete.report.detail import Detail
from mathlete.report.markup import Html, join, shorten, shorten_middle, tag
from mathlete.report.program import render_program
from mathlete.report.summary import ProblemSummary, same_answer
from mathlete.report.timeline import format_s

VERDICT_WORDS: dict[Verdict, str] = {
    "PROVED": "proved ✓",
    "SUPPORTED": "supported ✓",
    "REFUTED": "refuted ✗",
    "UNKNOWN": "unknown",
}
MAX_ANSWERS = 6
_MAX_EVIDENCE, _MAX_IN_SHORT = 40, 3
_EVIDENCE_WORDS = {"timeout": "out of time", "crash": "the check failed", "unparsable": "it could not be read"}


def verdict_badge(verdict: Verdict) -> Html:
    """The verdict as a small label; said in words, never by colour alone."""
    kind = {"PROVED": "supported", "SUPPORTED": "supported", "REFUTED": "refuted"}.get(verdict, "unknown")
    return tag("span", VERDICT_WORDS.get(verdict, verdict), class_=f"badge {kind}")


def verdicts_in_short(evidence: Sequence[Evidence]) -> str:
    """For one line, e.g. "7 supported ✓, 9 refuted ✗"; what is unknown is left out unless all is."""
    told = [item for item in evidence if item.verdict != "UNKNOWN"]
    if not told:
        return "no verdict"
    shown = [
        f"{shorten(item.answer or item.claim, 14)} {VERDICT_WORDS.get(item.verdict, item.verdict)}" for item in told
    ]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def render_evidence(evidence: Sequence[Evidence], detail: Detail) -> Html:
    """Each claim of one check with its verdict; what it rests on is folded."""
    if not evidence:
        return tag("p", "It left no evidence.", class_="quiet")
    rows = [_claim(item, detail) for item in evidence[:_MAX_EVIDENCE]]
    if (num_more := len(evidence) - _MAX_EVIDENCE) > 0:
        rows.append(tag("p", f"{num_more:,} more are left out of this page.", class_="quiet"))
    return tag("div", *rows, class_="evidence")


def render_findings(problem: ProblemSummary) -> Html:
    """What the checks say on each answer, the most voted for first; empty when nothing was checked."""
    checks = [attempt for attempt in problem.record.attempts if attempt.is_check]
    if not checks:
        return Html()
    answers = _answers_in_question(problem, checks)
    rows = [_finding(answer, checks) for answer in answers[:MAX_ANSWERS]]
    if (num_more := len(answers) - MAX_ANSWERS) > 0:
        rows.append(tag("p", f"and {num_more} more answers", class_="quiet"))
    return join([tag("h3", "Checks"), tag("div", *rows, class_="findings")])


def _claim(item: Evidence, detail: Detail) -> Html:
    notes = [item.checker, format_s(item.elapsed_s)]
    if item.failure:
        notes.append(_EVIDENCE_WORDS.get(item.failure, item.failure))
    parts = [
        tag(
            "p",
            verdict_badge(item.verdict),
            " ",
            f"{shorten(item.answer, 60)}: " if item.answer is not None and item.answer not in item.claim else "",
            shorten(item.claim, 300),
            " ",
            tag("span", " · ".join(notes), class_="quiet"),
        )
    ]
    if item.detail.strip():
        shown = shorten_middle(item.detail, detail.max_chars)
        body = render_program(shown, "") if detail.typeset else tag("pre", shown, class_="plain")
        parts.append(tag("details", tag("summary", "What it rests on"), body))
    return tag("div", *parts, class_="claim")


def _answers_in_question(problem: ProblemSummary, checks: Sequence[Attempt]) -> list[str]:
    judged = [item.answer for check in checks for item in check.evidence if item.answer is not None]
    named = [answer for check in checks for answer in check.about]
    asked = list(dict.fromkeys([*judged, *named]))
    return sorted(asked, key=lambda answer: -problem.votes.get(answer, 0))


def _finding(answer: str, checks: Sequence[Attempt]) -> Html:
    said = [
        join([item.checker.replace("_check", "", 1), " ", verdict_badge(item.verdict)])
        for check in checks
        for item in check.evidence
        if item.answer is not None and same_answer(item.answer, answer)
    ]
    shown = join(said[:MAX_ANSWERS], " ") if said else tag("span", "nothing", class_="quiet")
    return tag("p", tag("strong", shorten(answer, 24)), " ", shown)
