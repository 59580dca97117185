r"""One value of an answer: an expression with its unit or base, read from text.

Knows units, bases, currency, repeating decimals and products without a sign; what values are put together to is
`answer_forms.py`'s business, and what they are worth that of `equivalence.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from mathlete.verify.arithmetic import Refusal, calculate
from mathlete.verify.expression_parser import parse_expression
from mathlete.verify.expressions import Expression, Number
from mathlete.verify.math_tokens import MathToken, latex_tokens
from mathlete.verify.notation import tokenize
from mathlete.verify.number_words import cardinal


@dataclass(frozen=True, slots=True)
class Value:
    """A number or a function of letters.

    Attributes:
        expression: its tree.
        unit: "" for none, "degree", "percent", "$", or the words of a unit.
        base: that its digits are written in; 10 unless an index says otherwise.
        text: as written, for a person and for another process.
    """

    expression: Expression
    unit: str = ""
    base: int = 10
    text: str = ""


_BASED = re.compile(r"(-?)([0-9A-F]+)\s*_\s*(?:\{\s*(?:\\text\{)?([0-9]{1,2}|[a-z]+)\}?\s*\}|([0-9]))")
_REPEATING = re.compile(r"(-?)([0-9]*)\.([0-9]*)\\overline\{([0-9]+)\}")
_FONTS = r"\\(?:text|mbox|textrm|textbf|mathrm|rm)"
_UNIT = re.compile(
    rf"""\s*(?:
      (?P<degree>\^\s*\{{?\s*\\circ\s*\}}?|°|\\deg(?:ree)?(?![A-Za-z]))
    | (?P<percent>\\?%)
    | (?:{_FONTS}\s*\{{(?P<words>[^{{}}]*)\}}
        |(?<=[0-9}})\ ])\s*(?P<bare>[a-z]{{3,}}(?:\ [a-z]+)*|cm|mm|km|ft|in|mi|kg|ml))
      (?:\s*\^\s*\{{?\s*(?P<power>[23])\s*\}}?)?
    )$""",
    re.VERBOSE,
)
_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_FUNCTIONS = frozenset(["f", "g", "h", "F", "G", "H", "P", "Q", r"\phi", r"\varphi"])
_NOT_UNITS = frozenset(
    "million millions thousand billion hundred dozen pi mod base or and times to about approx not".split()
)


def read_value(text: str) -> Value:
    """A number or function with its unit.

    Raises:
        Refusal: as `read_form`.
    """
    text = text.strip()
    if (based := _BASED.fullmatch(text)) is not None:
        return _in_base(text, based)
    if (repeating := _REPEATING.fullmatch(text)) is not None:
        return Value(Number(_repeating(repeating)), text=text)
    unit = ""
    if text[:1] in ("$", "£", "€"):
        unit, text = "$" if text[0] == "$" else text[0], text[1:].lstrip()
    if (match := _UNIT.search(text)) is not None and match.start() > 0:
        found = _unit_name(match)
        if found is not None and (found != "degree" or _ANGLE.search(text) is None):
            unit, text = unit or found, text[: match.start()].rstrip()
    value = read_expression(text)
    return replace(value, unit=unit)


def _unit_name(match: re.Match[str]) -> str | None:
    if match["degree"] is not None:
        return "degree"
    if match["percent"] is not None:
        return "percent"
    words = " ".join((match["words"] or match["bare"] or "").lower().split())
    if not _NOT_UNITS.isdisjoint(words.split()) or any(character.isdigit() for character in words):
        return None
    if words in ("degree", "degrees", "percent"):
        return "percent" if words == "percent" else "degree"
    return words + (f"^{match['power']}" if match["power"] else "")


def read_expression(text: str) -> Value:
    """The tree of one expression.

    Raises:
        Refusal: it is none, or can be read in several ways.
    """
    tokens = [token for token in _products_shown(latex_tokens(text, 0, len(text)))]
    try:
        return Value(parse_expression(tokens), text=text)
    except Refusal as refusal:
        if refusal.reason not in ("unparsable", "missing"):
            raise
        first = refusal
    try:
        return Value(Number(calculate(tokenize(text))), text=text)
    except Refusal:
        raise first from None


def _products_shown(tokens: list[MathToken]) -> list[MathToken]:
    """With a sign between a letter and the bracket behind it, unless the letter is likely a function."""
    shown: list[MathToken] = []
    for token in tokens:
        before = shown[-1] if shown else None
        if (
            before is not None
            and before.kind == "symbol"
            and token.text in ("(", "[")
            and before.text not in _FUNCTIONS
        ):
            shown.append(MathToken("operator", "*", before.end, token.start))
        shown.append(token)
    return shown


def _in_base(text: str, match: re.Match[str]) -> Value:
    base = cardinal(match[3]) if match[3] is not None and not match[3].isdigit() else int(match[3] or match[4])
    if base is None or not 2 <= base <= 16:
        raise Refusal("unparsable")
    try:
        number = int(match[2], base)
    except ValueError:
        raise Refusal("unparsable") from None
    return Value(Number(Fraction(-number if match[1] else number)), base=base, text=text)


def _repeating(match: re.Match[str]) -> Fraction:
    r"""The value of 0.1\overline{6}."""
    whole, fixed, period = match[2] or "0", match[3], match[4]
    value = Fraction(int(whole + fixed + period) - int(whole + fixed), (10 ** len(period) - 1) * 10 ** len(fixed))
    return -value if match[1] else value
