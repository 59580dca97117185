"""How much of each attempt a page shows, so that thousands of attempts still make a page that opens.

Knows sizes of texts. Typeset text costs about ten times its size in the page and most of the time
to render; so each problem has an allowance of typeset text, spent in the order of its attempts,
and what comes after is shown plain. Plain text is cut in its middle only when all of it together
would be too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mathlete.core.attempt import Turn

TYPESET_CHARS = 1_500_000
PLAIN_CHARS = 20_000_000
MAX_TURN_CHARS = 24_000
_MAX_TEXT_CHARS = 64_000


@dataclass(frozen=True, slots=True)
class Detail:
    """How one attempt is shown.

    Attributes:
        typeset: mathematics, Markdown and coloured code, rather than plain text.
        max_chars: of any one text (a turn, a stream of output); the middle of longer ones is left out.
    """

    typeset: bool
    max_chars: int


def plan_detail(pools: Sequence[Sequence[Sequence[Turn]]]) -> list[list[Detail]]:
    """The detail of every attempt of every problem, given their turns, in the same order."""
    num_attempts = sum(map(len, pools))
    max_chars = max(200, min(_MAX_TEXT_CHARS, PLAIN_CHARS // max(1, num_attempts)))
    plan = []
    for pool in pools:
        left = TYPESET_CHARS // len(pools)
        details = []
        for turns in pool:
            cost = sum(map(_num_chars, turns))
            typeset = cost <= left and all(len(turn.text) <= MAX_TURN_CHARS for turn in turns)
            left -= cost if typeset else 0
            details.append(Detail(typeset, max_chars))
        plan.append(details)
    return plan


def _num_chars(turn: Turn) -> int:
    printed = len(turn.result.stdout) + len(turn.result.stderr) if turn.result is not None else 0
    return len(turn.text) + len(turn.code or "") + printed
