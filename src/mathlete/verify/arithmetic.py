r"""Exact arithmetic on closed expressions as people write them: LaTeX or plain, numbers only.

Knows + - * / ^ ! brackets, \frac, \binom, \sqrt of squares, gcd, lcm and "mod", on exact rationals. Does not know
variables, labels, units or which integers are admissible (`integers.py` does).

The input is hostile. Every ceiling (`ceilings.py`) is checked before the work it bounds, there is no `eval`, and
whatever is not understood is a `Refusal`, never a guess. Glossary: a *token* is the smallest piece of an
expression; a *node* is a number or an operation on nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from mathlete.verify.ceilings import (
    MAX_BITS,
    MAX_FACTORIAL,
    MAX_MODULAR_BITS,
    MAX_NESTING,
    MAX_OPERATIONS,
    MAX_POWER_OF_TEN,
)

RefusalReason = Literal["missing", "unparsable", "ambiguous", "not_an_integer", "too_large", "out_of_range"]
TokenKind = Literal["number", "operator", "open", "close", "separator", "label", "word", "text", "unit", "symbol"]

_CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\(": r"\)", r"\[": r"\]"}


class Refusal(Exception):
    """Text that is not taken for a number; `reason` says why."""

    def __init__(self, reason: RefusalReason) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason: RefusalReason = reason


@dataclass(frozen=True, slots=True)
class Token:
    """The smallest piece of an expression.

    Attributes:
        kind: "number", "operator" and brackets are arithmetic; the others are for `integers.py`.
        text: canonical spelling; a number has its separators of thousands taken out.
        comma: a number that was written with commas between its thousands.
    """

    kind: TokenKind
    text: str
    comma: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation and what it is applied to, in order."""

    name: str
    operands: tuple[Node, ...]


Node = Fraction | Operation


def closes(opening: str, closing: str) -> bool:
    """Whether two brackets are a pair."""
    return _CLOSING.get(opening) == closing


def calculate(tokens: list[Token]) -> Fraction:
    """The exact value of an expression that is nothing but arithmetic.

    Raises:
        Refusal: what it says cannot be read in exactly one way, or is beyond a ceiling.
    """
    parser = _Parser(tokens)
    node = parser.expression(0)
    if parser.peek() is not None:
        raise Refusal("unparsable")
    return _evaluate(node)


class _Parser:
    """Recursive descent; each method reads one level of precedence from `self._position` on."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = list(tokens)
        self._position = 0
        self._num_operations = 0

    def peek(self, offset: int = 0) -> str | None:
        """Text of an arithmetic token, kind for any other, None at the end."""
        if self._position + offset >= len(self._tokens):
            return None
        token = self._tokens[self._position + offset]
        return token.text if token.kind in ("operator", "open", "close") else token.kind

    def expression(self, depth: int) -> Node:
        r"""A sum, and the "(mod m)" or "\pmod m" after it that applies to all of it."""
        if depth > MAX_NESTING:
            raise Refusal("too_large")
        node = self._sum(depth)
        if self.peek() == "pmod":
            self._position += 1
            return self._operation("mod", node, self._power(depth))
        if self.peek() == "(" and self.peek(1) == "mod":
            self._position += 2
            node = self._operation("mod", node, self._sum(depth))
            self._close("(")
        return node

    def _sum(self, depth: int) -> Node:
        terms = [self._product(depth)]
        while (operator := self.peek()) in ("+", "-"):
            self._position += 1
            term = self._product(depth)
            terms.append(self._operation("neg", term) if operator == "-" else term)
        if len(terms) == 1:
            return terms[0]
        if any(isinstance(term, Operation) and term.name == "bare mod" for term in terms):
            raise Refusal("ambiguous")  # a + b mod m: of the sum or of b?
        return self._operation("+", *terms)

    def _product(self, depth: int) -> Node:
        node = self._signed(depth)
        while (operator := self.peek()) in ("*", "/", "mod"):
            self._position += 1
            name = "bare mod" if operator == "mod" else str(operator)
            node = self._operation(name, node, self._signed(depth))
        return node

    def _signed(self, depth: int) -> Node:
        sign = self.peek()
        if sign in ("+", "-"):
            self._position += 1
        node = self._power(depth)
        return self._operation("neg", node) if sign == "-" else node

    def _power(self, depth: int) -> Node:
        if depth > MAX_NESTING:
            raise Refusal("too_large")
        node = self._atom(depth)
        if self.peek() == "!":
            self._position += 1
            node = self._operation("!", node)
            if self.peek() == "!":
                raise Refusal("ambiguous")  # n!! is not (n!)!
        if self.peek() == "^":
            self._position += 1
            negative = self.peek() == "-"
            self._position += negative
            exponent = self._power(depth + 1)
            node = self._operation("^", node, self._operation("neg", exponent) if negative else exponent)
        return node

    def _atom(self, depth: int) -> Node:
        head = self.peek()
        if head == "number":
            self._position += 1
            return _literal(self._tokens[self._position - 1].text)
        if head in ("gcd", "lcm"):
            self._position += 1
            return self._operation(head, *self._listed(depth))
        if head in ("frac", "binom"):
            self._position += 1
            first = self._argument(depth)
            return self._operation("/" if head == "frac" else head, first, self._argument(depth))
        if head == "sqrt":
            self._position += 1
            return self._operation(head, self._argument(depth))
        if head is not None and head in _CLOSING:
            return self._group(head, depth)
        raise Refusal("unparsable")

    def _group(self, opening: str, depth: int) -> Node:
        self._position += 1
        start = self._position
        node = self.expression(depth + 1)
        alone = self._tokens[start] if self._position == start + 1 else None
        if alone is not None and alone.comma and opening != "{":
            raise Refusal("ambiguous")  # (1,234): a number or a pair?
        self._close(opening)
        if isinstance(node, Operation) and node.name == "bare mod":
            return Operation("mod", node.operands)
        return node

    def _listed(self, depth: int) -> list[Node]:
        """At least two expressions in brackets, with commas between them."""
        if self.peek() != "(":
            raise Refusal("unparsable")
        self._position += 1
        listed = [self.expression(depth + 1)]
        while self.peek() == "separator" and self._tokens[self._position].text == ",":
            self._position += 1
            listed.append(self.expression(depth + 1))
        if len(listed) < 2:
            raise Refusal("ambiguous")  # gcd(12,180): are these thousands?
        self._close("(")
        return listed

    def _argument(self, depth: int) -> Node:
        r"""What follows \frac and the like: a braced group, or as in TeX a single digit."""
        if self.peek() == "{":
            return self._group("{", depth)
        if self.peek() != "number":
            raise Refusal("unparsable")
        token = self._tokens[self._position]
        if token.comma or not token.text.isdigit():
            raise Refusal("unparsable")
        if len(token.text) > 1:
            self._tokens[self._position] = Token("number", token.text[1:])
        else:
            self._position += 1
        return Fraction(token.text[0])

    def _close(self, opening: str) -> None:
        if self.peek() != _CLOSING[opening]:
            raise Refusal("unparsable")
        self._position += 1

    def _operation(self, name: str, *operands: Node) -> Operation:
        self._num_operations += 1
        if self._num_operations > MAX_OPERATIONS:
            raise Refusal("too_large")
        return Operation(name, operands)


def _literal(text: str) -> Fraction:
    _, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_POWER_OF_TEN:
        raise Refusal("too_large")
    return Fraction(text)


def evaluate(node: Node) -> Fraction:
    """The exact value of a tree that `calculate` could have built.

    Raises:
        Refusal: it is undefined, irrational or beyond a ceiling.
    """
    return _evaluate(node)


def _evaluate(node: Node, modulus: int | None = None) -> Fraction:
    """The exact value; with a modulus, only its residue needs to be right."""
    if isinstance(node, Fraction):
        value = node
    elif node.name in ("mod", "bare mod"):
        value = _residue(node.operands[0], node.operands[1])
    elif node.name == "^":
        value = _raise(node.operands[0], node.operands[1], modulus)
    elif node.name in ("+", "*", "neg"):
        value = _combine(node.name, [_evaluate(operand, modulus) for operand in node.operands])
    else:
        value = _apply(node.name, [_evaluate(operand) for operand in node.operands])
    return _bounded(value) if modulus is None else Fraction(_whole(value) % modulus)


def _residue(left: Node, right: Node) -> Fraction:
    modulus = _whole(_evaluate(right))
    if modulus <= 0:
        raise Refusal("unparsable")
    if modulus.bit_length() > MAX_MODULAR_BITS:
        raise Refusal("too_large")
    # Fractions do not survive reducing their parts: 4 * (1/2) mod 4 is 2, not 0 * (1/2).
    value = _evaluate(left) if _divides(left) else _evaluate(left, modulus)
    return Fraction(_whole(value) % modulus)


def _divides(node: Node) -> bool:
    """Whether the operands of + and * below `node` may be fractions."""
    if isinstance(node, Fraction):
        return node.denominator != 1
    if node.name == "^":
        return _divides(node.operands[0])
    if node.name in ("+", "*", "neg"):
        return any(_divides(operand) for operand in node.operands)
    return node.name in ("/", "sqrt")


def _raise(base_node: Node, exponent_node: Node, modulus: int | None) -> Fraction:
    exponent = _whole(_evaluate(exponent_node))
    base = _evaluate(base_node, modulus if exponent > 0 else None)
    if exponent <= 0 and base == 0:
        raise Refusal("unparsable")
    if modulus is not None:
        if exponent < 0:
            raise Refusal("ambiguous")  # a fraction or an inverse?
        if exponent.bit_length() > MAX_MODULAR_BITS:
            raise Refusal("too_large")
        return Fraction(pow(base.numerator, exponent, modulus))
    if base == 0 or abs(base) == 1:
        return base if exponent % 2 else abs(base)
    if abs(exponent) * max(base.numerator.bit_length(), base.denominator.bit_length()) > MAX_BITS:
        raise Refusal("too_large")
    return Fraction(base**exponent)


def _combine(name: str, values: list[Fraction]) -> Fraction:
    if name == "neg":
        return -values[0]
    total = values[0]
    for value in values[1:]:
        total = _bounded(total + value if name == "+" else total * value)
    return total


def _apply(name: str, values: list[Fraction]) -> Fraction:
    if name == "/":
        if values[1] == 0:
            raise Refusal("unparsable")
        return values[0] / values[1]
    if name == "sqrt":
        return _square_root(values[0])
    numbers = [_whole(value) for value in values]
    if name in ("gcd", "lcm"):
        return _bounded(Fraction(math.gcd(*numbers) if name == "gcd" else math.lcm(*numbers)))
    if min(numbers) < 0:
        raise Refusal("unparsable")
    if name == "!":
        if numbers[0] > MAX_FACTORIAL:
            raise Refusal("too_large")
        return Fraction(math.factorial(numbers[0]))
    total, chosen = numbers
    if min(chosen, abs(total - chosen)) * total.bit_length() > MAX_BITS:  # binom(n, k) <= n^k
        raise Refusal("too_large")
    return Fraction(math.comb(total, chosen))


def _square_root(value: Fraction) -> Fraction:
    if value < 0:
        raise Refusal("unparsable")
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    if root * root != value:
        raise Refusal("not_an_integer")
    return root


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise Refusal("too_large")
    return value


def _whole(value: Fraction) -> int:
    if value.denominator != 1:
        raise Refusal("not_an_integer")
    return value.numerator
