"""What a beam search decided, as a folded table: the candidates of each level, and what became of them.

Knows levels and how much detail to show. Does not know what the candidates say.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathlete.core.attempt import BeamCandidate, BeamLevel
from mathlete.report.detail import Detail
from mathlete.report.markup import Html, counted, shorten, tag

_COLUMNS = ("candidate", "continues", "tokens", "score", "verdict", "what became of it")
_CHARS_A_ROW = 160  # what a row is reckoned to cost of the text that an attempt may show
_MAX_DETAIL_CHARS = 300


def render_beam(levels: Sequence[BeamLevel], detail: Detail) -> Html:
    """The table; of one with too many candidates for the page, the first levels."""
    rows = [_row(candidate) for level in levels for candidate in level.candidates]
    num_shown = max(1, detail.max_chars // _CHARS_A_ROW)
    note = f"{len(rows) - num_shown:,} more are left out of this page." if len(rows) > num_shown else ""
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in _COLUMNS)))
    return tag(
        "details",
        tag("summary", f"Beam: {counted(len(levels), 'level')}, {counted(len(rows), 'candidate')}"),
        tag("div", tag("table", head, tag("tbody", *rows[:num_shown])), class_="scroll", tabindex=0),
        tag("p", note, class_="quiet") if note else "",
        class_="beam",
    )


def _row(candidate: BeamCandidate) -> Html:
    was_judged = bool(candidate.detail) or candidate.verdict != "UNKNOWN"
    claim = tag("span", " ", shorten(candidate.detail, _MAX_DETAIL_CHARS), class_="quiet") if candidate.detail else ""
    return tag(
        "tr",
        tag("th", candidate.name, scope="row"),
        tag("td", candidate.parent or "—"),
        tag("td", f"{candidate.num_tokens:,}"),
        tag("td", "—" if candidate.score is None else f"{candidate.score:.2f}"),
        tag("td", candidate.verdict.lower() if was_judged else "—", claim),
        tag("td", candidate.fate),
        class_=candidate.fate,
    )
