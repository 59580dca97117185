r"""Where in a text the mathematics stands: formulas between LaTeX's delimiters, plain sentences, and code.

Knows delimiters only. A dollar sign opens a formula as in Pandoc: something other than white space follows at once,
and the next one has no white space before and no digit behind it; so "$3 + $4 = $7" is money. Linear in the
length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MAX_FORMULA_CHARS = 4_000

ZoneKind = Literal["latex", "plain", "code"]

_OPENING = re.compile(
    r"(?P<fence>^[ \t]*(?:```|~~~))|(?P<code>`)|(?P<graphics>\[asy\]|<code|<llm-code)|(?P<escape>\\[\\$])"
    r"|(?P<display>\$\$)|(?P<inline>\$(?=\S))|(?P<bracket>\\\[)|(?P<paren>\\\()|\\begin\{(?P<env>(?:align|equation|gather|alignat"
    r"|eqnarray|aligned|split|multline)\*?)\}",
    re.MULTILINE,
)
_INLINE_END = re.compile(r"(?<!\\)(?P<space>\s?)\$(?P<digit>[0-9]?)|\n[ \t]*\n")
_FENCE_END = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Zone:
    """A piece of text; `start` and `end` are those of what stands between the delimiters."""

    kind: ZoneKind
    start: int
    end: int


def zones(text: str) -> Iterator[Zone]:
    """The text cut into zones, in order; delimiters belong to none. What is never closed is plain."""
    plain_from, position = 0, 0
    missing: set[str] = set()
    while (opening := _OPENING.search(text, position)) is not None:
        position = opening.end()
        found = _closed(text, opening, missing)
        if found is None:
            continue
        zone, position = found
        if plain_from < opening.start():
            yield Zone("plain", plain_from, opening.start())
        yield zone
        plain_from = position
    if plain_from < len(text):
        yield Zone("plain", plain_from, len(text))


def _closed(text: str, opening: re.Match[str], missing: set[str]) -> tuple[Zone, int] | None:
    """The zone that `opening` begins and where the text goes on behind it; None when it is none."""
    kind, start = opening.lastgroup, opening.end()
    if kind in (None, "escape"):
        return None
    if kind == "fence":
        end = _FENCE_END.search(text, start)
        return Zone("code", start, end.start() if end else len(text)), end.end() if end else len(text)
    if kind == "inline":
        closing = _INLINE_END.search(text, start, start + MAX_FORMULA_CHARS)
        if closing is None or closing[0] != "$":
            return None
        return Zone("latex", start, closing.start()), closing.end()
    closer = {
        "code": "`",
        "graphics": {"[asy]": "[/asy]", "<code": "</code>", "<llm-code": "</llm-code>"}.get(opening[0], ""),
        "display": "$$",
        "bracket": r"\]",
        "paren": r"\)",
        "env": rf"\end{{{opening['env']}}}",
    }[str(kind)]
    at = -1 if closer in missing else text.find(closer, start)
    if at < 0:
        missing.add(closer)  # none follows: not looked for again
        return None
    if kind not in ("graphics", "code") and at - start > MAX_FORMULA_CHARS:
        return None
    if kind == "code" and "\n\n" in text[start:at]:
        return None
    return Zone("code" if kind in ("graphics", "code") else "latex", start, at), at + len(closer)
