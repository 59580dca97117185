r"""One answer, as written, to one integer: exact or refused.

Knows the shapes an answer comes in (labels, equations, units, words, wrappers) and the admissible interval.
Does not know where in a text the answer stands (`extraction.py` does). Nothing is rounded, made positive
or reduced, and no answer is picked from several.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from mathlete.core.attempt import AnswerSource
from mathlete.core.problem import AnswerKind
from mathlete.verify.arithmetic import Refusal, RefusalReason, Token, calculate, closes
from mathlete.verify.ceilings import MAX_ANSWER_CHARS
from mathlete.verify.exact_values import exact_value
from mathlete.verify.expression_parser import READINGS, parse_expression
from mathlete.verify.math_tokens import latex_tokens
from mathlete.verify.notation import tokenize
from mathlete.verify.number_words import cardinal

_WRAPPERS = ("**", "*", "`", "$$", "$", "__", "_")
_CURRENCY = frozenset(["$", r"\$", "£", "€"])
_SHORT_UNITS = frozenset(["cm", "mm", "km", "ft", "in", "mi", "kg", "ml", "sq", "mph", "deg"])
_NOT_UNITS = frozenset(  # words that change the number before them
    "about above approx approximately at base below billion choose cubed dozen factorial half hundred hundreds least "
    "less log million millions minus mod modulo more most not over pi plus remainder roughly score sqrt squared "
    "thousand thousands times trillion or and to through than".split()
)


@dataclass(frozen=True, slots=True)
class Extraction:
    """An integer that was read, or why there is none.

    Attributes:
        value: the integer, inside the admissible interval; None when refused.
        raw: the text it was read from, cut at `MAX_ANSWER_CHARS`.
        problem: None when there is a value. "missing": no answer there; "unparsable": not arithmetic;
            "ambiguous": several values or several readings; "not_an_integer"; "too_large": beyond a
            ceiling on length, nesting, size or work; "out_of_range": an integer, but not admissible.
        source: where it stood, once known.
    """

    value: int | None
    raw: str
    problem: RefusalReason | None = None
    source: AnswerSource | None = None

    @property
    def answer(self) -> str | None:
        """Canonical text of the value."""
        return None if self.value is None else str(self.value)


def parse_integer(raw: str, kind: AnswerKind) -> Extraction:
    r"""Read one answer, such as "1{,}234", "x = 42", "\dfrac{84}{2}" or "2^{100} \bmod 7".

    Never raises: what is not exactly one admissible integer comes back with a `problem`.
    """
    shown = raw[:MAX_ANSWER_CHARS]
    try:
        value = _integer(raw)
    except Refusal as refusal:
        return Extraction(None, shown, refusal.reason)
    if not kind.admits(value):
        return Extraction(None, shown, "out_of_range")
    return Extraction(value, shown)


def answers_equal(left: str, right: str) -> bool:
    """Whether two canonical integer texts are the same number; anything else equals nothing."""
    texts = (left.strip(), right.strip())
    if any(len(text) > MAX_ANSWER_CHARS or not re.fullmatch(r"[+-]?[0-9]+", text) for text in texts):
        return False
    return int(texts[0]) == int(texts[1])


def _integer(raw: str) -> int:
    if len(raw) > MAX_ANSWER_CHARS:
        raise Refusal("too_large")
    text = _unwrap(raw)
    tokens = tokenize(text)
    if not tokens:
        raise Refusal("missing")
    in_words = cardinal(" ".join(token.text for token in tokens))
    if in_words is not None:
        return in_words
    try:
        value = _value(_without_unit(_last_side(_without_braces(tokens))))
    except Refusal as refusal:
        if refusal.reason not in ("unparsable", "not_an_integer"):
            raise
        value = _read_as_algebra(text, refusal)
    if value.denominator != 1:
        raise Refusal("not_an_integer")
    return value.numerator


def _read_as_algebra(text: str, refusal: Refusal) -> Fraction:
    r"""The value of what `arithmetic.py` lacks: \lfloor x \rfloor, |x|, \sqrt[3]{x}, x^{1/2}, 2(3).

    Raises:
        Refusal: the given one when this cannot be read either, or when a doubtful spelling, such as a mixed number,
            has readings of different values.
    """
    try:
        tokens = latex_tokens(text, 0, len(text))
        values = {exact_value(parse_expression(tokens, reading)) for reading in READINGS}
    except Refusal:
        raise refusal from None
    if len(values) > 1:
        raise Refusal("ambiguous")
    return values.pop()


def _unwrap(raw: str) -> str:
    """Without Markdown and dollar signs around all of it, and without a full stop at its end."""
    text, before = raw.strip(), ""
    while text != before:
        before = text
        if re.search(r"[^.]\.$", text):
            text = text[:-1].rstrip()
        for wrapper in _WRAPPERS:
            if len(text) > 2 * len(wrapper) and text.startswith(wrapper) and text.endswith(wrapper):
                text = text[len(wrapper) : -len(wrapper)].strip()
    return text


def _without_braces(tokens: list[Token]) -> list[Token]:
    """Without brackets that only group: the braces of a font and the delimiters of mathematics."""
    while len(tokens) > 2 and tokens[0].text in ("{", r"\(", r"\[") and _partner(tokens) == len(tokens) - 1:
        tokens = tokens[1:-1]
    return tokens


def _partner(tokens: list[Token]) -> int | None:
    """Index of the bracket that closes the first token's."""
    depth = 0
    for index, token in enumerate(tokens):
        depth += (token.kind == "open") - (token.kind == "close")
        if depth == 0:
            return index if closes(tokens[0].text, token.text) else None
    return None


def _last_side(tokens: list[Token]) -> list[Token]:
    """What stands after the last "=" or label, provided that what stands before does not contradict it."""
    cuts: list[int] = []
    depth = 0
    for index, token in enumerate(tokens):
        depth += (token.kind == "open") - (token.kind == "close")
        if depth == 0 and token.kind == "separator":
            raise Refusal("ambiguous")
        if depth == 0 and token.kind == "label":
            cuts.append(index)
    if not cuts:
        return tokens
    last = tokens[cuts[-1] + 1 :]
    for start, cut in zip([0, *(cut + 1 for cut in cuts)], cuts, strict=False):
        _check_side(tokens[start:cut], tokens[cut].text, last)
    return last


def _check_side(side: list[Token], sign: str, last: list[Token]) -> None:
    if sign == ":":
        if any(token.kind == "number" for token in side):
            raise Refusal("ambiguous")  # 3:5 is a ratio
        return
    value = _known_value(side)
    if value is None:
        if _has_coefficients(side):
            raise Refusal("unparsable")  # 3x - y + 13 = 0 is a line, not the answer 0
    elif sign == "=" and value != _value(_without_unit(last)):
        raise Refusal("ambiguous")  # 2 + 3 = 6


def _has_coefficients(side: list[Token]) -> bool:
    """Whether numbers stand outside brackets and indices, as in an equation and not in f(3) or a_1."""
    depth = 0
    for index, token in enumerate(side):
        depth += (token.kind == "open") - (token.kind == "close")
        is_index = index > 0 and side[index - 1].text == "_"
        if token.kind == "number" and depth == 0 and not is_index:
            return True
    return False


def _known_value(side: list[Token]) -> Fraction | None:
    """The value of one side of an equation, or None when it has unknowns or is out of reach."""
    try:
        return calculate(_without_unit(side)) if side else None
    except Refusal:
        return None


def _without_unit(tokens: list[Token]) -> list[Token]:
    """Without a currency sign before and a unit behind the number."""
    start = 1 if tokens and tokens[0].text in _CURRENCY else 0
    end = len(tokens)
    while end > start + 1 and _is_unit(tokens[end - 1]):
        end -= 1
    return tokens[start:end]


def _is_unit(token: Token) -> bool:
    words = token.text.split()
    if token.kind == "word":  # letters in mathematics: a unit, or a product of unknowns?
        return (len(token.text) >= 4 or token.text in _SHORT_UNITS) and token.text not in _NOT_UNITS
    if token.kind == "text":
        return _NOT_UNITS.isdisjoint(words)
    return token.kind == "unit"


def _value(tokens: list[Token]) -> Fraction:
    if not tokens:
        raise Refusal("unparsable")
    try:
        return calculate(tokens)
    except Refusal as refusal:
        if refusal.reason == "unparsable" and any(token.kind == "separator" for token in tokens):
            raise Refusal("ambiguous") from None
        raise
