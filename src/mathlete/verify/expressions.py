"""Expressions as trees: numbers, symbols and operations on them. Knows neither spellings nor values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Number:
    """A literal.

    Attributes:
        value: as it stands.
        unit: value of its last decimal place, 0 for an integer: how coarse it may be rounded.
    """

    value: Fraction
    unit: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class Symbol:
    """A letter, maybe with an index, or "pi"."""

    name: str


@dataclass(frozen=True, slots=True)
class Term:
    """An operation on expressions.

    Attributes:
        name: "+", "*", "neg", "/", "^", "!", "binom", "sqrt", "mod" as in `arithmetic.py`, or "root" (radicand, index),
            "abs", "floor", "ceil", "degree", "ln", "log" (number, base), "sin" to "csc".
        operands: what it is applied to, in order.
    """

    name: str
    operands: tuple[Expression, ...]


Expression = Number | Symbol | Term


def symbols_in(expression: Expression) -> Iterator[str]:
    """Names of the symbols, "pi" among them, as often as they occur."""
    if isinstance(expression, Symbol):
        yield expression.name
    elif isinstance(expression, Term):
        for operand in expression.operands:
            yield from symbols_in(operand)


def names_in(expression: Expression) -> frozenset[str]:
    """Names of the operations that occur."""
    if not isinstance(expression, Term):
        return frozenset()
    return frozenset((expression.name,)).union(*(names_in(operand) for operand in expression.operands))


def degree_bound(expression: Expression) -> int:
    """An upper bound on the degree in the symbols that expanding would give."""
    if isinstance(expression, Symbol):
        return 1
    if isinstance(expression, Number):
        return 0
    degrees = [degree_bound(operand) for operand in expression.operands]
    if expression.name in ("*", "/"):
        return sum(degrees)
    if expression.name == "^" and isinstance(expression.operands[1], Number):
        return degrees[0] * max(1, int(expression.operands[1].value))
    return max(degrees)
