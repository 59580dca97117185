r"""What an answer is: a value, a tuple, a set, an interval, a union, a matrix, an equation, or words.

Knows shapes and reads text into them; whether two of them are the same is `equivalence.py`'s business. Whatever
cannot be read in exactly one way is a `Refusal`: nothing is dropped to make it fit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from mathlete.verify.answer_text import enclosed, split_outside, tidied, without_thousands
from mathlete.verify.answer_values import Value, read_value
from mathlete.verify.arithmetic import Refusal
from mathlete.verify.ceilings import MAX_ELEMENTS, MAX_FORM_CHARS, MAX_NESTING
from mathlete.verify.expressions import Number, Symbol
from mathlete.verify.number_words import cardinal


@dataclass(frozen=True, slots=True)
class Infinite:
    """Plus or minus infinity: an end of an interval."""

    sign: Literal[1, -1]


@dataclass(frozen=True, slots=True)
class Words:
    """An answer that is no mathematics: a name, a choice. Lower case, one space between words."""

    text: str


@dataclass(frozen=True, slots=True)
class Listed:
    r"""Several forms.

    Attributes:
        kind: "ordered" for "(1, 2)" and "[0, 1)", whose brackets matter; "set" for "\{1, 2\}"; "loose" for values that
            stand side by side without brackets, whose order does not matter; "union" of intervals and sets.
        elements: in the order of the text.
        brackets: of an ordered one, such as "[)".
    """

    kind: Literal["ordered", "set", "loose", "union"]
    elements: tuple[Form, ...]
    brackets: str = ""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of equal length."""

    rows: tuple[tuple[Form, ...], ...]


@dataclass(frozen=True, slots=True)
class Equation:
    """Left side = right side."""

    left: Value
    right: Value


Form = Value | Infinite | Words | Listed | Matrix | Equation

_CUP = re.compile(r"\\cup(?![A-Za-z])")
_LIST = re.compile(r"[,;]|\\(?:text|mbox|textrm|mathrm)\{\s*,?\s*(?:or|and)\s*\}|\b(?:or|and)\b")
_RELATION = re.compile(r"\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\[lg]t(?![A-Za-z])|<=|>=|<|>")
_EQUALS = re.compile(r"=")
_REFUSED = re.compile(
    r"\\(?:ne|neq|approx|sim|equiv|ldots|to|mapsto|forall|exists|setminus|cap|mid|cong)(?![A-Za-z])|[≈≡≠]"
)
_LABEL = re.compile(r"(?:\\text\{)?[A-Za-z][A-Za-z ]{2,40}:\s*\}?\s*|(?:the )?answer (?:is|=)\s*", re.IGNORECASE)
_MEMBER = re.compile(r"[A-Za-z]\s*\\in(?![A-Za-z])\s*")
_MATRIX = re.compile(r"\\begin\{(?:[pb]matrix)\}(.*)\\end\{(?:[pb]matrix)\}", re.DOTALL)
_INFINITY = re.compile(r"([+-]?)\s*\\infty")
_CHOICE = re.compile(r"\(?[A-H]\)?")
_WORD = re.compile(r"[a-z]*[aeiou][a-z]*(?<=[a-z]{3})")
_ONLY_WORDS = re.compile(
    r"(?:\\(?:text|mbox|textbf|textit|textrm|mathrm|mathbf|operatorname)\s*\{)?([^\\{}$^_=<>+*/|0-9]*)\}?"
)
_DEFINED = re.compile(r"([A-Za-z])\s*\(\s*[A-Za-z]\s*\)")


def read_form(raw: str) -> Form:
    """The form of one answer.

    Raises:
        Refusal: "missing", "unparsable", "ambiguous", or "too_large" beyond a ceiling.
    """
    if len(raw) > MAX_FORM_CHARS:
        raise Refusal("too_large")
    text = tidied(raw)
    if (label := _LABEL.match(text)) is not None and label.end() < len(text):
        text = text[label.end() :]
    return _read(tidied(text), 0)


def _read(text: str, depth: int) -> Form:
    if not text:
        raise Refusal("missing")
    if depth > MAX_NESTING:
        raise Refusal("too_large")
    if _REFUSED.search(text) is not None:
        raise Refusal("unparsable")
    if (words := _words(text)) is not None:
        return words
    if (matrix := _MATRIX.fullmatch(text)) is not None and r"\begin" not in matrix[1]:
        return _matrix(matrix[1], depth)
    if (member := _MEMBER.match(text)) is not None:
        text = text[member.end() :]
    if len(parts := split_outside(text, _CUP)) > 1:
        return Listed("union", _bounded(tuple(_read(part, depth + 1) for part in parts)))
    brackets = enclosed(text)
    if brackets is not None and brackets[0] != "{":
        return _bracketed(*brackets, depth)
    parts = [part for part in split_outside(without_thousands(text), _LIST) if part]
    if len(parts) > 1:
        return Listed("loose", _elements(parts, depth))
    return _single(without_thousands(text), depth)


def _words(text: str) -> Form | None:
    r"""Of an answer that is a name, a choice "(C)" or a number in words; other letters are mathematics."""
    match = _ONLY_WORDS.fullmatch(text)
    if match is None or _LIST.search(text) is not None:
        return None
    words = " ".join(match[1].lower().split()).strip(" ().")
    number = cardinal(words)
    if number is not None:
        return Value(Number(Fraction(number)), text=str(number))
    is_text = text.startswith("\\") and words != ""
    if is_text or words == "no" or _CHOICE.fullmatch(text) is not None or _WORD.search(words) is not None:
        return Words(words)
    return None


def _bracketed(opening: str, inside: str, closing: str, depth: int) -> Form:
    if opening == r"\{":
        if closing != r"\}":
            raise Refusal("unparsable")
        parts = split_outside(without_thousands(inside), _LIST) if inside else []
        return Listed("set", _elements(parts, depth))
    parts = split_outside(inside, _LIST)
    if len(parts) == 1:
        if (opening, closing) not in (("(", ")"), ("[", "]")):
            raise Refusal("unparsable")
        return _read(inside, depth + 1)
    return Listed("ordered", _elements(parts, depth, spread=False), opening + closing)


def _elements(parts: list[str], depth: int, spread: bool = True) -> tuple[Form, ...]:
    r"""One form a part; with `spread`, "1 \pm 2" is two of them."""
    elements: list[Form] = []
    for part in parts:
        form = _read(part, depth + 1)
        if isinstance(form, Listed) and form.kind == "loose":
            if not spread:
                raise Refusal("ambiguous")
            elements.extend(form.elements)
        else:
            elements.append(form)
    return _bounded(tuple(elements))


def _bounded(elements: tuple[Form, ...]) -> tuple[Form, ...]:
    if len(elements) > MAX_ELEMENTS:
        raise Refusal("too_large")
    return elements


def _matrix(inside: str, depth: int) -> Form:
    rows = [row for row in split_outside(inside, re.compile(r"\\\\")) if row]
    cells = [tuple(_read(cell, depth + 1) for cell in split_outside(row, re.compile("&"))) for row in rows]
    if not cells or len({len(row) for row in cells}) > 1 or sum(map(len, cells)) > MAX_ELEMENTS:
        raise Refusal("unparsable")
    return Matrix(tuple(cells))


def _single(text: str, depth: int) -> Form:
    """What has neither brackets around it nor commas in it."""
    if (infinity := _INFINITY.fullmatch(text)) is not None:
        return Infinite(-1 if infinity[1] == "-" else 1)
    if r"\mp" in text or text.count(r"\pm") > 1:
        raise Refusal("ambiguous")
    if r"\pm" in text:
        return Listed("loose", tuple(_read(text.replace(r"\pm", sign), depth + 1) for sign in "+-"))
    if len(parts := split_outside(text, _RELATION)) > 1:
        return _inequality(text, parts)
    if text in (r"\varnothing", "\\varnothing "):
        return Listed("set", ())
    sides = split_outside(text, _EQUALS)
    if len(sides) == 1:
        return read_value(text)
    if len(sides) > 2 or not all(sides):
        raise Refusal("ambiguous")
    return Equation(_side(sides[0]), _side(sides[1]))


def _side(text: str) -> Value:
    """A side of an equation; "f(x)" is what the equation defines, and no product."""
    if (named := _DEFINED.fullmatch(text)) is not None:
        return Value(Symbol(f"{named[1]}()"), text=text)
    return read_value(text)


def _inequality(text: str, parts: list[str]) -> Form:
    r"""The interval of "x > 5", "2 < x \le 7" and "5 < x"."""
    signs = [match.group() for match in _RELATION.finditer(text)]
    if len(signs) != len(parts) - 1 or len(signs) > 2:
        raise Refusal("unparsable")
    is_strict = [sign in ("<", ">", r"\lt", r"\gt") for sign in signs]
    if len({sign[0:2] in (">", ">=", r"\g") for sign in signs}) > 1:
        raise Refusal("ambiguous")
    if signs[0].startswith((">", r"\g")):
        parts, is_strict = parts[::-1], is_strict[::-1]
    letters = [index for index, part in enumerate(parts) if re.fullmatch("[A-Za-z]", part)]
    if letters != ([1] if len(parts) == 3 else letters[:1]) or not letters:
        raise Refusal("unparsable")
    low: Form = Infinite(-1) if letters[0] == 0 else _single(parts[0], 0)
    high: Form = Infinite(1) if letters[0] == len(parts) - 1 else _single(parts[-1], 0)
    opening = "(" if letters[0] == 0 or is_strict[0] else "["
    closing = ")" if letters[0] == len(parts) - 1 or is_strict[-1] else "]"
    return Listed("ordered", (low, high), opening + closing)


def solved_for(equation: Equation) -> tuple[str, Value] | None:
    """The letter and what it is said to be, for "x = 5", "5 = x" and "f(x) = 2x"; None for other equations."""
    for letter, other in ((equation.left, equation.right), (equation.right, equation.left)):
        expression = letter.expression
        if isinstance(expression, Symbol) and expression.name != "pi":
            return expression.name, other
    return None
