"""Where a step of running text ends, and which texts lead nowhere. Pure; knows no generator.

Words: a *step* is a stretch of text up to a blank line, to the next item of a list, or to a sentence end that a logical
keyword follows; or it is one fenced block of code. A *dead end* is found in a step and says how far to go back: to the
start of the first text that should not be there.

SPEC A1 also names "repeated violations, depth > 10". They are no dead ends here because constrained texts never get
there: masks admit no token that violates anything, and `ConstraintSpec.max_depth` is a ceiling of the brackets open at
once. Loops are looked for within one turn: what a turn before it said may well be said again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

REFUTED, CONTRADICTION, REPETITION, ENTROPY = "refuted", "contradiction", "repetition", "entropy"

# SPEC A1: checkpoints at logical keywords.
_KEYWORDS = (
    "Therefore|Thus|Hence|So|Since|Because|Then|Now|Next|Finally|Consequently|It follows|We have|Let|Suppose|Assume|"
    "However|But|Similarly|First|Second|To find|Substitut\\w+|Note"
)
_PROSE_END = re.compile(
    rf"(?P<blank>\n[ \t]*\n)|(?P<item>\n(?=[ \t]*(?:\d+[.)]|[-*] +\*\*)[ \t]*\S))|"
    rf"(?P<fence>^[ \t]*`{{3,}}[\w+-]*[ \t]*$)|(?P<sentence>[.!?:;](?=(?:[ \t]+|[ \t]*\n[ \t]*)(?:{_KEYWORDS})\b))",
    re.MULTILINE,
)
_FENCE = re.compile(r"^[ \t]*`{3,}[\w+-]*[ \t]*$", re.MULTILINE)
_CLOSING = re.compile(r"^[ \t]*`{3,}[ \t]*\n", re.MULTILINE)
_WINDOW_CHARS = 720  # of the text's end in which a loop is looked for


@dataclass(frozen=True, slots=True)
class DeadEndRules:
    """When a text is given up.

    Attributes:
        min_repeats: how often a piece of text must stand at the end, one after the other, to be a loop.
        min_repeated_chars: how long all of them together must be.
        min_step_repeats: how often the same step must have been written, anywhere.
        entropy_tokens: tokens over which entropy is averaged.
        entropy_nats: mean entropy above which the model is held to be lost; mathematical text has 0.2 to 0.6.
    """

    min_repeats: int = 4
    min_repeated_chars: int = 120
    min_step_repeats: int = 3
    entropy_tokens: int = 16
    entropy_nats: float = 3.0

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name, least in (("min_repeats", 2), ("min_step_repeats", 2), ("entropy_tokens", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"DeadEndRules.{name} must be >= {least}, not {getattr(self, name)}")
        if self.min_repeated_chars < 1 or not self.entropy_nats > 0:
            raise ValueError("DeadEndRules.min_repeated_chars and entropy_nats must be positive")


STRICT_RULES = DeadEndRules(min_repeats=3, min_repeated_chars=80, entropy_nats=2.5)


class Step(NamedTuple):
    """A finished step: characters [start, end) of the text."""

    start: int
    end: int
    is_code: bool


class DeadEnd(NamedTuple):
    """Why a text is given up, and the character from which on it should not be there."""

    reason: str
    start: int
    detail: str


def next_step(text: str, start: int, in_code: bool = False) -> Step | None:
    """The step that begins at `start`, or None as long as it has no end.

    Args:
        text: as far as it is written.
        start: where the step before ended.
        in_code: whether a block that was opened before `start` is still open there.
    """
    first = len(text) - len(text[start:].lstrip())
    if not in_code and text.startswith("```", first):
        opening = _FENCE.match(text, text.rfind("\n", 0, first) + 1)
        if opening is None or opening.end() == len(text):  # its line is not complete
            return None
        closing = _CLOSING.search(text, opening.end())
        return None if closing is None else Step(start, closing.end(), is_code=True)
    if in_code:
        closing = _CLOSING.search(text, start)
        return None if closing is None else Step(start, closing.end(), is_code=True)
    end = _PROSE_END.search(text, first)
    if end is None or (end["fence"] is not None and end.end() == len(text)):
        return None
    return Step(start, end.start() if end["fence"] is not None else end.end(), is_code=False)


def ends_in_code(text: str) -> bool:
    """Whether a fenced block is open at the end of the text."""
    return len(_FENCE.findall(text)) % 2 == 1


def find_loop(text: str, rules: DeadEndRules) -> DeadEnd | None:
    """A piece of text that stands at the end again and again; found in the last 720 characters, in linear time.

    The failure function of Knuth, Morris and Pratt over the reversed text gives each suffix its smallest period.
    """
    tail = text[-_WINDOW_CHARS:][::-1]
    border = [0] * len(tail)
    k, found = 0, None
    for i in range(1, len(tail)):
        while k and tail[i] != tail[k]:
            k = border[k - 1]
        k += tail[i] == tail[k]
        border[i] = k
        length, period = i + 1, i + 1 - k
        if length >= rules.min_repeated_chars and length >= rules.min_repeats * period:
            found = length, period
    if found is None:
        return None
    length, period = found
    piece = text[len(text) - period :]
    return DeadEnd(REPETITION, len(text) - length + period, f"{length // period} times in a row: {_shown(piece)}")


def find_repeated_step(steps: Sequence[str], start: int, rules: DeadEndRules) -> DeadEnd | None:
    """The last step, which begins at `start`, as one that was written too often. Short ones do not count."""
    last = steps[-1].strip() if steps else ""
    count = Counter(step.strip() for step in steps)[last]
    if len(last) < rules.min_repeated_chars // 4 or count < rules.min_step_repeats:
        return None
    return DeadEnd(REPETITION, start, f"the same step {count} times: {_shown(last)}")


def is_lost(entropies: Sequence[float], rules: DeadEndRules) -> float | None:
    """The mean entropy, nats, of the last tokens, when it is so high that the model must be lost; else None."""
    if len(entropies) < rules.entropy_tokens:
        return None
    mean = sum(entropies[-rules.entropy_tokens :]) / rules.entropy_tokens
    return mean if mean > rules.entropy_nats else None


def _shown(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 80 else f"{flat[:77]}...")
