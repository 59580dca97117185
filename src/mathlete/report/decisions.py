"""How work on one problem went, in words: what was launched, what came of it, who led then, and why it ended.

Knows the moments of a problem's record. Does not know how decisions are made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mathlete.core.attempt import Attempt
from mathlete.core.record import Moment, ProblemRecord
from mathlete.report.checks import verdicts_in_short
from mathlete.report.markup import Html, counted, shorten, tag
from mathlete.report.summary import FAILURE_WORDS
from mathlete.report.timeline import format_s

_MAX_STEPS = 200


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the story.

    Attributes:
        at_s: seconds since the problem was opened; negative never.
        words: what happened.
        kind: "decision" or "happening".
    """

    at_s: float
    words: str
    kind: str


def steps_of(record: ProblemRecord) -> tuple[Step, ...]:
    """The story of a problem; launches that follow one another are told together."""
    attempts = {attempt.id: attempt for attempt in record.attempts}
    votes: Counter[str] = Counter()
    start_s = record.opened_at_s or 0.0
    steps: list[Step] = []
    launches: list[Moment] = []
    for moment in record.moments:
        if moment.kind == "decision" and moment.data.get("action") == "launch":
            if moment.data.get("n") != 0:  # 0 where there was no slot
                launches.append(moment)
            continue
        if moment.kind == "attempt_started":
            continue  # its launch has been told
        if launches:
            steps.append(_step(launches[0], start_s, _launched(launches), "decision"))
            launches = []
        if moment.kind == "problem_opened":
            start_s = moment.at_s
            steps.append(_step(moment, start_s, _opened(moment.data), "decision"))
        elif moment.kind == "attempt_finished" and moment.attempt_id in attempts:
            words = _ended(attempts[moment.attempt_id], votes)
            steps.append(_step(moment, start_s, words, "happening"))
        elif moment.kind == "decision" and moment.data.get("action") == "stop":
            steps.append(
                _step(moment, start_s, f"Stopped: {shorten(str(moment.data.get('reason', '')), 200)}.", "decision")
            )
    if launches:
        steps.append(_step(launches[0], start_s, _launched(launches), "decision"))
    return tuple(steps)


def render_decisions(record: ProblemRecord) -> Html:
    """The story as a folded list; empty where the trace does not tell it."""
    steps = steps_of(record)
    if not steps:
        return Html()
    rows = [
        tag("li", tag("span", format_s(step.at_s), class_="when"), " ", tag("span", step.words), class_=step.kind)
        for step in steps[:_MAX_STEPS]
    ]
    if (num_more := len(steps) - _MAX_STEPS) > 0:
        rows.append(tag("li", f"{num_more:,} more are left out of this page.", class_="quiet"))
    return tag("details", tag("summary", _in_short(steps)), tag("ol", *rows), class_="decisions")


def _step(moment: Moment, start_s: float, words: str, kind: str) -> Step:
    return Step(max(0.0, moment.at_s - start_s), words, kind)


def _in_short(steps: Sequence[Step]) -> str:
    num_decisions = sum(step.kind == "decision" for step in steps)
    return f"How it went: {counted(num_decisions, 'decision')} over {format_s(steps[-1].at_s)}"


def _opened(data: Mapping[str, Any]) -> str:
    share_s, affordable = data.get("budget_s"), data.get("affordable")
    room = f"Opened, with {format_s(float(share_s))} of the clock" if isinstance(share_s, int | float) else "Opened"
    return f"{room} and room for {counted(affordable, 'attempt')}." if isinstance(affordable, int) else f"{room}."


def _launched(launches: Sequence[Moment]) -> str:
    kinds: Counter[tuple[str, str]] = Counter()
    for moment in launches:
        kinds[_pillar(moment.data), _about(moment.data)] += _number(moment.data.get("n"))
    told = [f"{number} × {pillar}{about}" for (pillar, about), number in kinds.items()]
    return f"Launched {', '.join(told)}."


def _pillar(data: Mapping[str, Any]) -> str:
    round_ = data.get("round")
    name = shorten(str(data.get("pillar", "attempt")), 24).replace("_", " ")
    return f"{name} of round {round_}" if isinstance(round_, int) and round_ > 1 else name


def _about(data: Mapping[str, Any]) -> str:
    about = data.get("about")
    if not isinstance(about, list | tuple) or not about:
        return ""
    return f" on {' and '.join(shorten(str(answer), 16) for answer in about[:4])}"


def _number(value: object) -> int:
    return value if isinstance(value, int) else 1


def _ended(attempt: Attempt, votes: Counter[str]) -> str:
    """What came of an attempt; counts its vote."""
    name = f"#{shorten(attempt.id.rpartition('#')[2], 24)}"
    if attempt.is_check:
        return f"Check {name} ({attempt.pillar.removesuffix('_check')}): {verdicts_in_short(attempt.evidence)}."
    if attempt.answer is None:
        return f"Attempt {name}: {FAILURE_WORDS[attempt.failure or 'no_answer']}."
    votes[attempt.answer] += 1
    leader, most = votes.most_common(1)[0]
    level = sum(count == most for count in votes.values())
    standing = (
        f"{level} answers are level at {most}"
        if level > 1
        else f"{shorten(leader, 16)} leads, {most} of {votes.total()}"
    )
    return f"Attempt {name}: {shorten(attempt.answer, 24)}; {standing}."
