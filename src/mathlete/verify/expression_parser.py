r"""From tokens to trees: a whitelist of arithmetic, algebra and a few functions, read by precedence climbing.

Knows + - * / ^ ! brackets, |x|, floor and ceiling, \frac, \binom, \sqrt, sin to csc, ln, \log_b, pi and degrees,
decimals with their number of places, symbols with indices, and products without a sign. Does not know functions of
the text's own ("f(x)"), sums with dots, sets, units or which values symbols take. Values are found in
`exact_values.py`, and what needs algebra in `algebra.py`.

The input is hostile: the named ceilings are checked before anything is built, there is no `eval`, and whatever
can be read in more than one way is a `Refusal`. Two doubtful spellings have two values each that authors mean
("3\frac{1}{2}", "-2^2"); a `Reading` picks one, and who judges must look at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from mathlete.verify.arithmetic import Refusal
from mathlete.verify.ceilings import (
    MAX_DEGREE,
    MAX_EXPRESSION_CHARS,
    MAX_LITERAL_DIGITS,
    MAX_NESTING,
    MAX_OPERATIONS,
    MAX_SYMBOLS,
    MAX_TOTAL_DEGREE,
)
from mathlete.verify.expressions import Expression, Number, Symbol, Term, degree_bound, symbols_in
from mathlete.verify.math_tokens import MathToken

_DOUBLE_DIGITS = 15
_CLOSING = {"(": ")", "[": "]", "{": "}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil", r"\lvert": r"\rvert"}
_WRAPPED = {r"\lfloor": "floor", r"\lceil": "ceil", r"\lvert": "abs"}
_TRIGONOMETRY = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
_MULTIPLIERS = frozenset("abcdkmnxyz")
"""Letters that are taken for a factor before an opening bracket; others might be functions."""


@dataclass(frozen=True, slots=True)
class Reading:
    r"""How doubtful spellings are read.

    Attributes:
        mixed: "3\frac{1}{2}" is 3.5, not 1.5.
        sign_first: "-2^2" is 4, not -4.
    """

    mixed: bool = True
    sign_first: bool = False


READINGS = tuple(Reading(mixed, sign_first) for mixed in (True, False) for sign_first in (False, True))


def parse_expression(tokens: Sequence[MathToken], reading: Reading = READINGS[0]) -> Expression:
    """The tree of all the tokens.

    Raises:
        Refusal: "unparsable", "ambiguous", or "too_large" beyond a ceiling.
    """
    if not tokens:
        raise Refusal("missing")
    if tokens[-1].end - tokens[0].start > MAX_EXPRESSION_CHARS:
        raise Refusal("too_large")
    parser = _Parser(tokens, reading)
    expression = parser.sum(0)
    if parser.peek() is not None:
        raise Refusal("unparsable")
    if len(set(symbols_in(expression))) > MAX_SYMBOLS or degree_bound(expression) > MAX_TOTAL_DEGREE:
        raise Refusal("too_large")
    return expression


class _Parser:
    """Each method reads one level of precedence from `self._position` on."""

    def __init__(self, tokens: Sequence[MathToken], reading: Reading) -> None:
        self._tokens = tokens
        self._reading = reading
        self._position = 0
        self._num_operations = 0
        self._open_bars = 0

    def peek(self, offset: int = 0) -> str | None:
        """Text of an operator, function or bracket, kind of any other token, None at the end."""
        if self._position + offset >= len(self._tokens):
            return None
        token = self._tokens[self._position + offset]
        return token.text if token.kind in ("operator", "function", "open", "close") else token.kind

    def sum(self, depth: int) -> Expression:
        """Terms with + or - between them; "mod" after it when there is only one."""
        if depth > MAX_NESTING:
            raise Refusal("too_large")
        terms = [self._product(depth)]
        while (operator := self.peek()) in ("+", "-"):
            self._position += 1
            term = self._product(depth)
            terms.append(self._term("neg", term) if operator == "-" else term)
        if self.peek() == "mod":
            if len(terms) > 1:
                raise Refusal("ambiguous")  # a + b mod m: of the sum or of b?
            self._position += 1
            return self._term("mod", terms[0], self._product(depth))
        return terms[0] if len(terms) == 1 else self._term("+", *terms)

    def _product(self, depth: int) -> Expression:
        left, divided = self._signed(depth), False
        while True:
            operator = self.peek()
            if operator in ("*", "/"):
                if operator == "/" and divided:
                    raise Refusal("ambiguous")  # 25 / 1/3: 25/3 or 75?
                self._position += 1
                divided = operator == "/"
                left = self._term(operator, left, self._signed(depth))
            elif self._starts_factor():
                if divided:
                    raise Refusal("ambiguous")  # 1/2x: (1/2)x or 1/(2x)?
                left = self._beside(left, depth)
            else:
                return left

    def _starts_factor(self) -> bool:
        """Whether a factor without a sign follows."""
        head = self.peek()
        return (
            head in ("symbol", "frac", "binom", "sqrt", "(", "[", "{")
            or head in _WRAPPED
            or head in (_TRIGONOMETRY | {"ln", "log"})
        )

    def _beside(self, left: Expression, depth: int) -> Expression:
        """A factor without a sign before it, or the fraction of a mixed number."""
        before = self._tokens[self._position - 1]
        head = self.peek()
        if before.kind == "symbol" and head in ("(", "["):
            self._check_factor(before)
        right = self._power(depth)
        if before.kind == "number" and head == "frac" and isinstance(left, Number) and left.unit == 0:
            fraction = _proper_fraction(right)
            if fraction is not None and self._reading.mixed:
                return self._term("+", left, right)
        return self._term("*", left, right)

    def _check_factor(self, before: MathToken) -> None:
        """Refuse a letter that may be a function of what stands in the bracket."""
        inside, behind = self.peek(1), self.peek(2)
        if before.text not in _MULTIPLIERS or (inside in ("symbol", "number") and behind in (")", "]")):
            raise Refusal("ambiguous")

    def _signed(self, depth: int) -> Expression:
        sign = self.peek()
        if sign not in ("+", "-"):
            return self._power(depth)
        self._position += 1
        if self.peek() in ("+", "-"):
            raise Refusal("ambiguous")
        literal = self.peek() == "number"
        operand = self._power(depth)
        if sign == "+":
            return operand
        power = literal and isinstance(operand, Term) and operand.name == "^"
        if power and self._reading.sign_first:
            assert isinstance(operand, Term)
            return self._term("^", self._term("neg", operand.operands[0]), operand.operands[1])
        return self._term("neg", operand)

    def _power(self, depth: int) -> Expression:
        if depth > MAX_NESTING:
            raise Refusal("too_large")
        base = self._atom(depth)
        if self.peek() == "!":
            self._position += 1
            base = self._term("!", base)
            if self.peek() == "!":
                raise Refusal("ambiguous")  # n!! is not (n!)!
        if self.peek() == "unit":
            self._position += 1
            base = self._term("degree", base)
        if self.peek() == "^":
            self._position += 1
            negative = self.peek() == "-"
            self._position += negative
            exponent = self._power(depth + 1)
            base = self._term("^", base, self._term("neg", exponent) if negative else exponent)
            if self.peek() == "!":
                raise Refusal("ambiguous")
        return base

    def _atom(self, depth: int) -> Expression:
        head = self.peek()
        if head == "currency" and self.peek(1) == "number":
            self._position += 1
            head = "number"
        if head == "number":
            self._position += 1
            return _number(self._tokens[self._position - 1].text)
        if head == "symbol":
            self._position += 1
            return Symbol(self._tokens[self._position - 1].text)
        if head in ("frac", "binom"):
            self._position += 1
            first = self._argument(depth)
            return self._term("/" if head == "frac" else "binom", first, self._argument(depth))
        if head == "sqrt":
            return self._root(depth)
        if head in _TRIGONOMETRY or head in ("ln", "log"):
            return self._function(str(head), depth)
        if head == "|":
            return self._bars(depth)
        if head is not None and head in _CLOSING:
            inside = self._group(head, depth)
            return self._term(_WRAPPED[head], inside) if head in _WRAPPED else inside
        raise Refusal("unparsable")

    def _root(self, depth: int) -> Expression:
        self._position += 1
        if self.peek() != "[":
            return self._term("sqrt", self._argument(depth))
        index = self._group("[", depth)
        return self._term("root", self._argument(depth), index)

    def _function(self, name: str, depth: int) -> Expression:
        r"""sin, ln, \log_b of what follows: a bracket, or one factor."""
        self._position += 1
        operands: list[Expression] = []
        if name == "log":
            if self.peek() != "_":
                raise Refusal("ambiguous")  # base e, 10 or 2?
            self._position += 1
            operands.append(self._argument(depth))
        exponent = None
        if self.peek() == "^":
            self._position += 1
            exponent = self._argument(depth)
            if not isinstance(exponent, Number) or exponent.value < 1:
                raise Refusal("ambiguous")  # an inverse or a power?
        in_bracket = self.peek() in ("(", "[", "{")
        operand = self._group(str(self.peek()), depth) if in_bracket else self._power(depth + 1)
        if self.peek() in ("^", "!") or (not in_bracket and self._starts_factor()):
            raise Refusal("ambiguous")  # sin 2x, sin (x)^2
        value = self._term(name, operand, *operands)
        return value if exponent is None else self._term("^", value, exponent)

    def _bars(self, depth: int) -> Expression:
        self._position += 1
        self._open_bars += 1
        inside = self.sum(depth + 1)
        if self.peek() != "|":
            raise Refusal("unparsable")
        self._position += 1
        self._open_bars -= 1
        return self._term("abs", inside)

    def _group(self, opening: str, depth: int) -> Expression:
        self._position += 1
        inside = self.sum(depth + 1)
        if self.peek() != _CLOSING[opening]:
            raise Refusal("unparsable")
        self._position += 1
        return inside

    def _argument(self, depth: int) -> Expression:
        r"""What follows \frac and the like: a braced group, or as in TeX a single letter or digit."""
        if self.peek() == "{":
            return self._group("{", depth)
        if self.peek() == "symbol":
            self._position += 1
            return Symbol(self._tokens[self._position - 1].text)
        if self.peek() != "number":
            raise Refusal("unparsable")
        token = self._tokens[self._position]
        if not token.text.isdigit() or len(token.text) != token.end - token.start:
            raise Refusal("unparsable")
        if len(token.text) == 1:
            self._position += 1
        else:  # \frac12: the rest is the next argument
            rest = MathToken("number", token.text[1:], token.start + 1, token.end)
            self._tokens = [*self._tokens[: self._position], rest, *self._tokens[self._position + 1 :]]
        return _number(token.text[0])

    def _term(self, name: str, *operands: Expression) -> Term:
        self._num_operations += 1
        if self._num_operations > MAX_OPERATIONS:
            raise Refusal("too_large")
        if name == "^" and any(True for _ in symbols_in(operands[0])):
            exponent = operands[1]
            if isinstance(exponent, Number) and exponent.value > MAX_DEGREE:
                raise Refusal("too_large")
        return Term(name, operands)


def _number(text: str) -> Number:
    if len(text) > MAX_LITERAL_DIGITS:
        raise Refusal("too_large")
    whole, _, places = text.partition(".")
    if not places:
        return Number(Fraction(text))
    unit = Fraction(1, 10 ** len(places))
    if len((whole + places).lstrip("0")) >= _DOUBLE_DIGITS:  # printed by a program: rounded in binary
        unit = max(unit, Fraction(text) / 2**48)
    return Number(Fraction(text), unit)


def _proper_fraction(expression: Expression) -> Fraction | None:
    """The value of a fraction of two integers below 1."""
    if isinstance(expression, Term) and expression.name == "/":
        top, bottom = expression.operands
        if isinstance(top, Number) and isinstance(bottom, Number) and 0 < top.value < bottom.value:
            return top.value / bottom.value
    return None
