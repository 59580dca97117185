"""Finds fenced blocks of code in what a model writes. Pure text."""

from __future__ import annotations

import re
from dataclasses import dataclass

PYTHON_NAMES = frozenset({"python", "py", "python3"})

_FENCE = re.compile(r"^[ \t]*(`{3,})[ \t]*([\w+-]*)[^\n`]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        language: the word after the opening fence, lower case; may be empty.
        code: its lines, without the fences.
        end: offset in the text just behind the closing fence.
    """

    language: str
    code: str
    end: int


def closed_blocks(text: str) -> list[Block]:
    """All blocks that are opened and closed, in order. A block left open is not one of them."""
    blocks = []
    opening: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif not fence[2] and len(fence[1]) >= len(opening[1]):
            blocks.append(Block(opening[2].lower(), text[opening.end() + 1 : fence.start()], fence.end()))
            opening = None
    return blocks


def program_at_end(text: str) -> str | None:
    """The Python program in the block that the text ends with, or None."""
    blocks = closed_blocks(text)
    if not blocks or text[blocks[-1].end :].strip() or blocks[-1].language not in PYTHON_NAMES:
        return None
    return blocks[-1].code if blocks[-1].code.strip() else None
