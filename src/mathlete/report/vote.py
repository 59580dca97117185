"""The vote of one problem as a picture: one bar per answer, and one for those who did not vote.

Knows summaries of problems. Does not know how the answer was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mathlete.core.attempt import Failure
from mathlete.lab.rightness import is_right
from mathlete.report.markup import Html, join, shorten, tag
from mathlete.report.summary import FAILURE_WORDS, ProblemSummary, same_answer

MAX_ANSWERS = 10
# In pixels of the picture: its width, a row, a bar, room for a character, room for the note after a bar.
_WIDTH, _ROW, _BAR, _CHAR, _NOTE = 460, 30, 18, 9, 190


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of the picture.

    Attributes:
        label: the answer, in full.
        votes: attempts behind it.
        kind: "chosen", "other" or "silent".
        note: what is said after the number of votes.
    """

    label: str
    votes: int
    kind: str
    note: str = ""


def vote_bars(problem: ProblemSummary) -> tuple[Bar, ...]:
    """The rows, most votes first; the chosen and the gold answer are always among them."""
    record = problem.record
    chosen = record.selection.answer if record.selection is not None and problem.rests_on_votes else None
    bars: list[Bar] = []
    num_more = votes_of_more = 0
    for answer, votes in problem.votes.items():
        is_chosen = chosen is not None and same_answer(answer, chosen)
        is_gold = record.gold is not None and is_right(record, answer)
        if len(bars) < MAX_ANSWERS or is_chosen or is_gold:
            note = _note(is_chosen, is_gold, record.gold is not None)
            bars.append(Bar(answer, votes, "chosen" if is_chosen else "other", note))
        else:
            num_more += 1
            votes_of_more += votes
    if num_more:
        bars.append(Bar(f"{num_more} more", votes_of_more, "other", "further answers"))
    if record.gold is not None and problem.gold_votes == 0:
        bars.append(Bar(record.gold, 0, "other", "right answer ✓"))
    if problem.silent:
        bars.append(Bar("no answer", sum(problem.silent.values()), "silent"))
    return tuple(bars)


def describe_silent(silent: Mapping[Failure, int]) -> str:
    """Why attempts had no answer, e.g. "No answer: 2 token limit reached, 1 program failed."."""
    return f"No answer: {', '.join(f'{count} {FAILURE_WORDS[failure]}' for failure, count in silent.items())}."


def draw_vote(problem: ProblemSummary) -> Html:
    """The vote as a bar chart in SVG; empty when no attempt has finished."""
    bars = vote_bars(problem)
    if not bars:
        return Html()
    most = max(bar.votes for bar in bars) or 1
    bar_start = 12 + _CHAR * max(len(_label(bar)) for bar in bars)
    spoken = "; ".join(f"{bar.label}: {_value(bar)}" for bar in bars)
    return tag(
        "svg",
        join(_row(bar, index * _ROW, bar_start, most) for index, bar in enumerate(bars)),
        class_="vote",
        viewBox=f"0 0 {_WIDTH} {_ROW * len(bars)}",
        role="img",
        aria_label=f"Votes per answer. {spoken}",
    )


def _row(bar: Bar, top: int, bar_start: int, most: int) -> Html:
    middle = top + _ROW / 2
    length = max(2, round((_WIDTH - _NOTE - bar_start) * bar.votes / most))
    return tag(
        "g",
        tag("title", f"{shorten(bar.label, 200)}: {_value(bar)}"),
        tag("text", _label(bar), x=0, y=middle),
        tag("rect", x=bar_start, y=middle - _BAR / 2, width=length, height=_BAR, rx=2),
        tag("text", shorten(_value(bar), 28), x=bar_start + length + 8, y=middle),
        class_=bar.kind,
    )


def _label(bar: Bar) -> str:
    return shorten(bar.label, 13)


def _value(bar: Bar) -> str:
    return f"{bar.votes} · {bar.note}" if bar.note else str(bar.votes)


def _note(is_chosen: bool, is_gold: bool, gold_known: bool) -> str:
    if is_gold:
        return "chosen, right ✓" if is_chosen else "right answer ✓"
    if is_chosen:
        return "chosen, wrong ✗" if gold_known else "chosen"
    return ""
