"""Exact rational values of expressions, and the interval of values when decimals in them may be rounded.

Knows no symbols but those that are given a value, and no irrational numbers: those are a `Refusal` with reason
"not_an_integer" from here, and the business of `algebra.py`. All ceilings on size are those of `arithmetic.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from mathlete.verify.arithmetic import Node, Operation, Refusal, evaluate
from mathlete.verify.expressions import Expression, Number, Symbol, Term

_SHARED = frozenset({"+", "*", "neg", "/", "^", "!", "binom", "sqrt", "mod"})
_NO_SYMBOLS: Mapping[str, Fraction] = {}


class Interval(NamedTuple):
    """All values from `low` to `high`."""

    low: Fraction
    high: Fraction


def exact_value(expression: Expression, values: Mapping[str, Fraction] = _NO_SYMBOLS) -> Fraction:
    """The value with the symbols' `values` put in; degrees count as plain numbers.

    Raises:
        Refusal: "not_an_integer" when it is (or may be) irrational or lacks a value for a symbol, "unparsable" when
            it is undefined, "too_large" beyond a ceiling.
    """
    return evaluate(_substituted(expression, values))


def residue(expression: Expression, modulus: int) -> int:
    """The value of a closed expression modulo `modulus`, without computing large powers.

    Raises:
        Refusal: as `exact_value`, and when it is no integer.
    """
    value = evaluate(Operation("mod", (_substituted(expression, _NO_SYMBOLS), Fraction(modulus))))
    return value.numerator


def _substituted(expression: Expression, values: Mapping[str, Fraction]) -> Node:
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Symbol):
        if expression.name not in values:
            raise Refusal("not_an_integer")
        return values[expression.name]
    if expression.name in _SHARED:
        return Operation(expression.name, tuple(_substituted(operand, values) for operand in expression.operands))
    operands = [exact_value(operand, values) for operand in expression.operands]
    if expression.name == "degree":
        return operands[0]
    if expression.name == "abs":
        return abs(operands[0])
    if expression.name in ("floor", "ceil"):
        return Fraction(operands[0].__floor__() if expression.name == "floor" else operands[0].__ceil__())
    if expression.name == "root":
        return _root(operands[0], operands[1])
    raise Refusal("not_an_integer")


def _root(value: Fraction, index: Fraction) -> Fraction:
    """The n-th root when it is rational."""
    if index.denominator != 1 or not 2 <= index <= 64 or (value < 0 and index % 2 == 0):
        raise Refusal("unparsable")
    degree = index.numerator
    root = Fraction(_integer_root(abs(value.numerator), degree), _integer_root(value.denominator, degree))
    if root**degree != abs(value):
        raise Refusal("not_an_integer")
    return -root if value < 0 else root


def _integer_root(number: int, degree: int) -> int:
    """The largest integer whose power does not exceed `number`; bisection."""
    low, high = 0, 1 << (number.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**degree <= number else (low, middle - 1)
    return low


def has_decimals(expression: Expression) -> bool:
    """Whether any literal has decimal places."""
    if isinstance(expression, Term):
        return any(has_decimals(operand) for operand in expression.operands)
    return isinstance(expression, Number) and expression.unit > 0


def possible_values(expression: Expression) -> Interval:
    """Values of a closed expression if each decimal in it stands for anything within one unit of its last place.

    So 0.66 may be 2/3 cut off, or 0.67 rounded. Only + - * / and whole powers of decimals are followed.

    Raises:
        Refusal: for anything else, and for a division by an interval around zero.
    """
    if not has_decimals(expression):
        value = exact_value(expression)
        return Interval(value, value)
    if isinstance(expression, Number):
        return Interval(expression.value - expression.unit, expression.value + expression.unit)
    if not isinstance(expression, Term):
        raise Refusal("not_an_integer")
    if expression.name == "^":
        return _power(possible_values(expression.operands[0]), exact_value(expression.operands[1]))
    return _combined(expression.name, [possible_values(operand) for operand in expression.operands])


def _combined(name: str, parts: list[Interval]) -> Interval:
    if name == "degree":
        return parts[0]
    if name == "neg":
        return Interval(-parts[0].high, -parts[0].low)
    if name == "+":
        return Interval(sum((p.low for p in parts), Fraction(0)), sum((p.high for p in parts), Fraction(0)))
    if name == "*":
        return _product(parts[0], parts[1])
    if name == "/":
        if parts[1].low <= 0 <= parts[1].high:
            raise Refusal("unparsable")
        return _product(parts[0], Interval(1 / parts[1].high, 1 / parts[1].low))
    raise Refusal("not_an_integer")


def _product(left: Interval, right: Interval) -> Interval:
    corners = [a * b for a in left for b in right]
    return Interval(min(corners), max(corners))


def _power(base: Interval, exponent: Fraction) -> Interval:
    if exponent.denominator != 1 or not 0 <= exponent <= 64:
        raise Refusal("too_large")
    result = Interval(Fraction(1), Fraction(1))
    for _ in range(exponent.numerator):
        result = _product(result, base)
    return result
