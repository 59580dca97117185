"""How mathematics is cut into clauses: at separators and brackets, each with its relations. Knows tokens only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mathlete.verify.math_tokens import MathToken

MAX_DEPTH = 32
"""Brackets in brackets; a deeper formula is not read."""


@dataclass(frozen=True, slots=True)
class Clause:
    """Tokens from `start` to `end`, and the places of the relations among them at the clause's own depth."""

    start: int
    end: int
    relations: tuple[int, ...]


class _Level:
    """An open bracket while clauses are cut."""

    def __init__(self, opening: str, start: int) -> None:
        self.opening = opening
        self.start = start
        self.relations: list[int] = []
        self.is_list = False


_CLOSERS = {")": "(", "]": "[", "}": "{", r"\rfloor": r"\lfloor", r"\rceil": r"\lceil", r"\rvert": r"\lvert"}


def clauses(tokens: Sequence[MathToken]) -> Iterator[Clause]:
    """Cut at separators and brackets; only clauses with a relation.

    A bracket holds a clause only when it is closed and has no separator in it; a sentence or line that ends inside
    a bracket gives nothing.
    """
    levels = [_Level("", 0)]
    for index, token in enumerate(tokens):
        level = levels[-1]
        if token.kind == "relation":
            level.relations.append(index)
        elif token.kind == "separator" and (len(levels) == 1 or token.text == "\n"):
            if len(levels) == 1:
                yield from _closed(level, index)
            levels = [_Level("", index + 1)]
        elif token.kind == "separator":
            level.is_list = True
        elif token.kind == "open":
            is_box = token.text == "{" and token.end - token.start > 1
            levels.append(_Level("box" if is_box else token.text, index + 1))
            if len(levels) > MAX_DEPTH:
                return
        elif token.kind == "close":
            opening = _CLOSERS[token.text]
            if level.opening == opening or (level.opening == "box" and opening == "{"):
                if not level.is_list and _may_hold_clause(tokens, level):
                    yield from _closed(level, index)
                levels.pop()
            elif len(levels) == 1:  # "1)" begins an item of a list
                yield from _closed(level, index)
                levels = [_Level("", index + 1)]
            else:
                return
    if len(levels) == 1:
        yield from _closed(levels[0], len(tokens))


def _closed(level: _Level, end: int) -> Iterator[Clause]:
    if level.relations:
        yield Clause(level.start, end, tuple(level.relations))


def _may_hold_clause(tokens: Sequence[MathToken], level: _Level) -> bool:
    """Whether a bracket is a remark ("(so 2 + 3 = 5)") or a box, and not an argument or an index."""
    if level.opening == "box":
        return True
    if level.opening != "(":
        return False
    first = level.start - 1
    while first > 0 and tokens[first].kind != "open":
        first -= 1
    before = tokens[first - 1] if first > 0 else None
    if before is None or before.kind in ("separator", "relation"):
        return True
    return before.kind in ("word", "number", "close") and before.end < tokens[first].start
