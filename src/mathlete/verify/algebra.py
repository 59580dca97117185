"""What needs SymPy and mpmath: irrational numbers to 50 digits with rigorous bounds, and simplification.

Runs only in `symbolic_worker.py`'s process, which is killed when it takes too long. Knows trees of `expressions.py`
that have passed their ceilings; nothing is parsed here.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

try:
    import mpmath
    import sympy
except ModuleNotFoundError as _missing:  # the extra `tools` is not installed: `load_algebra` says so
    if _missing.name not in ("mpmath", "sympy"):
        raise
    mpmath = sympy = None

from mathlete.verify.arithmetic import Refusal
from mathlete.verify.exact_values import exact_value
from mathlete.verify.expressions import Expression, Number, Symbol, Term, names_in

DIGITS = 50
_TRIGONOMETRY = ("sin", "cos", "tan", "cot", "sec", "csc")


def load_algebra() -> SympyAlgebra | None:
    """SymPy's algebra; None where SymPy is not installed."""
    return None if sympy is None else SympyAlgebra()


class SympyAlgebra:
    """`equation_judgement.Algebra` by SymPy; letters stand for any complex number."""

    def difference_sign(self, left: Expression, right: Expression) -> int | None:
        """Sign of left - right by interval arithmetic; None when the interval holds zero.

        Raises:
            Refusal: for what is undefined, not real, or ambiguous (the sine of a plain number).
        """
        context = mpmath.iv
        context.dps = DIGITS + 10
        difference = _interval(left, context) - _interval(right, context)
        if difference.a > 0:
            return 1
        return -1 if difference.b < 0 else None

    def is_identical(self, left: Expression, right: Expression) -> bool:
        """Whether SymPy simplifies left - right to zero."""
        difference = _to_sympy(left) - _to_sympy(right)
        return bool(sympy.expand(difference) == 0 or sympy.simplify(difference) == 0)

    def constant_difference(self, left: Expression, right: Expression) -> Fraction | None:
        """The rational number that SymPy simplifies left - right to, if it does."""
        difference = sympy.simplify(_to_sympy(left) - _to_sympy(right))
        return Fraction(int(difference.p), int(difference.q)) if difference.is_Rational else None


def _interval(expression: Expression, context: Any) -> Any:
    """An mpmath interval around the value; degrees are multiples of pi here."""
    if "degree" not in names_in(expression):
        try:
            value = exact_value(expression)
        except Refusal as refusal:
            if refusal.reason != "not_an_integer":
                raise
        else:
            return context.mpf(value.numerator) / context.mpf(value.denominator)
    if isinstance(expression, Symbol) and expression.name == "pi":
        return context.pi
    if not isinstance(expression, Term):
        raise Refusal("unparsable")
    return _interval_of(expression, context)


def _interval_of(term: Term, context: Any) -> Any:
    name = term.name
    if name in _TRIGONOMETRY:
        return _trigonometric(name, _angle(term.operands[0], context), context)
    parts = [_interval(operand, context) for operand in term.operands]
    if name == "+":
        return sum(parts[1:], parts[0])
    if name == "*":
        return parts[0] * parts[1]
    if name == "neg":
        return -parts[0]
    if name == "/":
        return parts[0] / _nonzero(parts[1])
    if name == "degree":
        return parts[0] * context.pi / 180
    if name == "abs":
        return abs(parts[0])
    if name == "sqrt" and parts[0].a >= 0:
        return context.sqrt(parts[0])
    if name == "ln":
        return context.log(_positive(parts[0]))
    if name == "log":
        return context.log(_positive(parts[0])) / _nonzero(context.log(_positive(parts[1])))
    if name in ("^", "root"):
        exponent = exact_value(term.operands[1])
        return _power(parts[0], exponent if name == "^" else 1 / exponent, context)
    raise Refusal("unparsable")


def _power(base: Any, exponent: Fraction, context: Any) -> Any:
    if abs(exponent) > 1000:
        raise Refusal("too_large")
    if exponent.denominator == 1:
        power = base ** abs(exponent.numerator)
        return power if exponent >= 0 else context.mpf(1) / _nonzero(power)
    return context.exp(context.log(_positive(base)) * context.mpf(exponent.numerator) / exponent.denominator)


def _angle(expression: Expression, context: Any) -> Any:
    """Of degrees or of multiples of pi; the sine of a plain number is refused, it may be meant in degrees."""
    if "degree" not in names_in(expression):
        try:
            if exact_value(expression) != 0:
                raise Refusal("ambiguous")
        except Refusal as refusal:
            if refusal.reason != "not_an_integer":
                raise
    return _interval(expression, context)


def _trigonometric(name: str, angle: Any, context: Any) -> Any:
    sine, cosine = context.sin(angle), context.cos(angle)
    one = context.mpf(1)
    if name == "sin":
        return sine
    if name == "cos":
        return cosine
    if name in ("tan", "sec"):
        return (sine if name == "tan" else one) / _nonzero(cosine)
    return (cosine if name == "cot" else one) / _nonzero(sine)


def _nonzero(interval: Any) -> Any:
    if interval.a <= 0 <= interval.b:
        raise Refusal("unparsable")
    return interval


def _positive(interval: Any) -> Any:
    if interval.a <= 0:
        raise Refusal("unparsable")
    return interval


def _to_sympy(expression: Expression) -> Any:
    """The same tree of SymPy's; numbers exact, letters without assumptions."""
    if isinstance(expression, Number):
        return sympy.Rational(expression.value.numerator, expression.value.denominator)
    if isinstance(expression, Symbol):
        return sympy.pi if expression.name == "pi" else sympy.Symbol(expression.name)
    operands = [_to_sympy(operand) for operand in expression.operands]
    name = expression.name
    if name == "+":
        return sympy.Add(*operands)
    if name == "*":
        return sympy.Mul(*operands)
    if name == "neg":
        return -operands[0]
    if name == "/":
        return operands[0] / operands[1]
    if name == "^":
        return operands[0] ** operands[1]
    if name == "sqrt":
        return sympy.sqrt(operands[0])
    if name == "root":
        return operands[0] ** (1 / operands[1])
    if name == "log":
        return sympy.log(operands[0], operands[1])
    if name == "degree":
        return operands[0] * sympy.pi / 180
    if name in _TRIGONOMETRY:
        return getattr(sympy, name)(operands[0])
    functions = {"ln": sympy.log, "abs": sympy.Abs, "!": sympy.factorial, "binom": sympy.binomial}
    if name not in functions:
        raise Refusal("unparsable")
    return functions[name](*operands)
