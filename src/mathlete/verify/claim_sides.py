"""Where one side of an equation begins and ends between words, and where a formula is only part of a computation.

Knows tokens and the words that go with operations ("half of 10 + 2"); does not know what is computed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mathlete.verify.formula_zones import Zone
from mathlete.verify.math_tokens import MathToken

_OPERATOR_WORDS = frozenset(
    "of twice half double triple quadruple times plus minus by from and per over than to square squared cubed cube "
    "divided multiplied subtract subtracting add adding less more root log ln sin cos tan sqrt gcd lcm max min floor "
    "ceil abs x mod modulo choose or between through hundred thousand million billion dozen zero one two three four "
    "five six seven eight nine ten eleven twelve twenty thirty forty fifty negative not c p exponent power base "
    "equation equations eq eqs step steps line lines page pages problem case "
    "approximately about roughly nearly around almost".split()
)
_CONTINUING_WORDS = frozenset(
    "times hundred thousand million billion trillion dozen dozens mod modulo remainder r plus minus over divided "
    "multiplied squared cubed of percent x choose factorial".split()
)
_UNITS = frozenset(
    "hour hours hr hrs h minute minutes min day days week weeks month months year years foot feet ft yard yards pound "
    "pounds lb lbs dollar dollars degree degrees m km kg".split()
)
_BEHIND_AND = frozenset("a one two three half another".split())
_OPERATOR_BEFORE = re.compile(r"[-+*/^×·÷=(]\s*$")
_OPERATOR_BEHIND = re.compile(r"\\?\$?\s*(?:\$\s*)?(?:[!%°^+*/×·÷(]|-\s*[0-9$\\(]|\\%)")


def goes_on_before(text: str, zone: Zone, left: range, tokens: Sequence[MathToken]) -> bool:
    """Whether the formula only continues what a plain text before it computes."""
    if left.start > 0 or not left:
        return False
    return _OPERATOR_BEFORE.search(text[max(0, zone.start - 6) : zone.start].rstrip("$\\[(")) is not None


def goes_on_behind(text: str, zone: Zone, right: range, tokens: Sequence[MathToken]) -> bool:
    """Whether a plain text behind the formula goes on computing: "... = 13$ ! $"."""
    if right.stop < len(tokens) or not right:
        return False
    behind = text[zone.end : zone.end + 8].removeprefix("\\]").removeprefix("\\)").removeprefix("$").removeprefix("$")
    return _OPERATOR_BEHIND.match(behind.lstrip(" ")) is not None


def left_core(tokens: Sequence[MathToken], start: int, stop: int, is_latex: bool) -> range:
    """The end of a side that can be the left of a claim: back from its relation sign to the last word."""
    first = stop
    depth = 0
    while first > start:
        token = tokens[first - 1]
        if token.kind == "close":
            depth += 1
        elif token.kind == "open":
            depth -= 1
        elif depth == 0 and token.kind in ("word", "other", "separator", "modulus"):
            break
        first -= 1
    if first == stop or (tokens[first].kind == "operator" and tokens[first].text not in ("-", "|")):
        return range(0)
    if first > start:
        before, head = tokens[first - 1], tokens[first]
        if before.kind != "word" or before.text.split()[-1:] == [] or before.text.split()[-1] in _OPERATOR_WORDS:
            return range(0)
        if head.kind == "operator" and head.text != "|":
            return range(0)
        if first - start > 1 and tokens[first - 2].kind == "operator":
            return range(0)  # "/ metre 3 = ..."
        if first - start > 1 and tokens[first - 2].kind == "number" and before.text in _UNITS:
            return range(0)  # "2 hours 20 + 10 = 150"
        if before.end == head.start and (head.kind == "open" or not is_latex):
            return range(0)  # f(2)
    elif start > 1 and (tokens[start - 2].kind == "operator" or _splits_number(tokens, start - 1)):
        return range(0)  # "2 + . 84 = ...", "14, 400 / 80 = ..."
    elif start > 0 and tokens[start - 1].kind == "close" and tokens[first].kind == "operator":
        return range(0)  # ") + 1 = ...", of a bracket that was opened elsewhere
    return range(first, stop)


def right_core(tokens: Sequence[MathToken], start: int, stop: int, end: int, is_latex: bool) -> range:
    """The beginning of a side that can be the right of a claim: on from its relation sign to the first word."""
    last, depth = start, 0
    while last < stop:
        token = tokens[last]
        if depth == 0 and token.kind in ("word", "other", "separator"):
            break
        if depth == 0 and token.kind == "open" and last > start and _is_remark(tokens, last, end, is_latex):
            break
        depth += (token.kind == "open") - (token.kind == "close")
        last += 1
    if last == start:
        return range(0)
    if last < len(tokens) and last < end:
        behind = tokens[last]
        if behind.kind == "other" or (behind.kind == "word" and behind.text.split()[:1] == []):
            return range(0)
        if behind.kind == "word" and _continues(tokens, last):
            return range(0)
    if _splits_number(tokens, last):
        return range(0)
    return range(start, last)


def _continues(tokens: Sequence[MathToken], index: int) -> bool:
    """Whether the word at `index` goes on with the number before it: "= 3 thousand", "= 3 and a half"."""
    word = tokens[index].text.split()[0]
    if word != "and":
        return word in _CONTINUING_WORDS
    following = tokens[index + 1] if index + 1 < len(tokens) else None
    return following is not None and (following.kind == "number" or following.text in _BEHIND_AND)


def _splits_number(tokens: Sequence[MathToken], index: int) -> bool:
    """Whether the token at `index` is the comma of "14, 400"."""
    if not 0 < index < len(tokens) - 1 or tokens[index].text != ",":
        return False
    before, behind = tokens[index - 1], tokens[index + 1]
    return before.kind == behind.kind == "number" and len(behind.text) == 3


def _is_remark(tokens: Sequence[MathToken], opening: int, end: int, is_latex: bool) -> bool:
    """Whether the bracket holds words, as in "= 8 (apples)"."""
    if is_latex or tokens[opening].text != "(":
        return False
    for index in range(opening + 1, end):
        if tokens[index].kind == "close":
            return False
        if tokens[index].kind in ("word", "relation"):
            return True
    return False
