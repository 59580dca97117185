r"""Plain integer arithmetic as it stands in running text: + - * / ^ and brackets, \times, \cdot, \div, \frac no.

Knows nothing of variables, decimals or fractions: whatever is not an exact integer all the way has no value here.
Ceilings come before work: length, digits, exponents and nesting.
"""

from __future__ import annotations

import re

MAX_CHARS = 200
MAX_DIGITS = 30
MAX_EXPONENT = 64
MAX_NESTING = 16

_TOKEN = re.compile(r"\s*(?:(?P<number>[0-9]+)|(?P<operator>\\(?:times|cdot|div)(?![A-Za-z])|[-+*/^(){}×·÷]))")
_OPERATORS = {r"\times": "*", r"\cdot": "*", "×": "*", "·": "*", r"\div": "/", "÷": "/", "{": "(", "}": ")"}


class _NoValue(Exception):
    """Not plain integer arithmetic, or beyond a ceiling."""


def integer_value(text: str) -> int | None:
    """The exact value of all of `text`, or None when it is anything but plain integer arithmetic."""
    if len(text) > MAX_CHARS:
        return None
    try:
        parser = _Parser(_tokens(text))
        value = parser.sum(0)
        return value if parser.at_end() else None
    except _NoValue:
        return None


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None or len(match["number"] or "") > MAX_DIGITS:
            raise _NoValue
        tokens.append(match["number"] or _OPERATORS.get(match["operator"], match["operator"]))
        position = match.end()
    return tokens


class _Parser:
    """Recursive descent with values instead of a tree."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._position = 0

    def at_end(self) -> bool:
        """Whether every token was read."""
        return self._position == len(self._tokens)

    def sum(self, depth: int) -> int:
        """Terms with + and - between them; a sign may come first."""
        if depth > MAX_NESTING:
            raise _NoValue
        negative = self._take("-")
        if negative and self._position + 1 < len(self._tokens) and self._tokens[self._position + 1] == "^":
            raise _NoValue  # -2^2
        total = self._product(depth) * (-1 if negative else 1)
        while True:
            if self._take("+"):
                total += self._product(depth)
            elif self._take("-"):
                total -= self._product(depth)
            else:
                return total

    def _product(self, depth: int) -> int:
        value, divided = self._power(depth), False
        while True:
            if self._take("*"):
                value *= self._power(depth)
            elif self._take("/"):
                divisor = self._power(depth)
                if divided or divisor == 0 or value % divisor:
                    raise _NoValue  # a / b / c is read in two ways
                value, divided = value // divisor, True
            else:
                return value

    def _power(self, depth: int) -> int:
        base = self._atom(depth)
        if not self._take("^"):
            return base
        exponent = self._atom(depth)
        if self._take("^") or not 0 <= exponent <= MAX_EXPONENT or len(str(abs(base))) > MAX_DIGITS:
            raise _NoValue
        return int(base**exponent)

    def _atom(self, depth: int) -> int:
        if self._take("("):
            value = self.sum(depth + 1)
            if not self._take(")"):
                raise _NoValue
            return value
        if self._position < len(self._tokens) and self._tokens[self._position].isdigit():
            self._position += 1
            return int(self._tokens[self._position - 1])
        raise _NoValue

    def _take(self, token: str) -> bool:
        found = self._position < len(self._tokens) and self._tokens[self._position] == token
        self._position += found
        return found
