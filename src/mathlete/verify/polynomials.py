r"""Expressions in one exact normal form: quotients of polynomials in letters, pi, i and square roots of primes.

Knows sums, products, whole powers, quotients and square roots of rational numbers. Letters and pi count as
transcendental, e too; i^2 = -1; square roots of different primes are independent over the rationals. So two
expressions of this kind are the same if and only if their normal forms are: no guessing, no digits, no search.
Everything else (nested roots, sines, logarithms) is a `Refusal`, and the business of `algebra.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

from mathlete.verify.arithmetic import Refusal
from mathlete.verify.ceilings import MAX_BITS, MAX_DEGREE, MAX_MONOMIAL_PRODUCTS, MAX_MONOMIALS, MAX_RADICAND
from mathlete.verify.exact_values import exact_value
from mathlete.verify.expressions import Expression, Number, Symbol, Term

Monomial = tuple[tuple[str, int], ...]
"""Atoms with their exponents, sorted by atom: a letter, "pi", "i", or "√7" for the square root of a prime."""
Polynomial = Mapping[Monomial, Fraction]
"""Coefficients that are not zero."""

_ONE: Monomial = ()
_CONSTANTS = frozenset({"pi", "i", "e"})


@dataclass(frozen=True, slots=True)
class Quotient:
    """`top` over `bottom`; `bottom` is not zero. Not reduced: compare with `is_same`."""

    top: Polynomial
    bottom: Polynomial


class Expansion:
    """Brings expressions into normal form, within one allowance of work (`ceilings.MAX_MONOMIAL_PRODUCTS`)."""

    def __init__(self) -> None:
        """Start with the whole allowance."""
        self._num_products = 0

    def expand(self, expression: Expression) -> Quotient:
        """The normal form.

        Raises:
            Refusal: "not_an_integer" for what has none, "unparsable" for what is undefined, "too_large" beyond a
                ceiling.
        """
        try:
            return _constant(exact_value(expression))
        except Refusal as refusal:
            if refusal.reason != "not_an_integer":
                raise
        if isinstance(expression, Symbol):
            return Quotient({((expression.name, 1),): Fraction(1)}, _ONES)
        assert isinstance(expression, Term)
        return self._term(expression)

    def is_same(self, left: Quotient, right: Quotient) -> bool:
        """Whether both stand for the same number or function."""
        return self._times(left.top, right.bottom) == self._times(right.top, left.bottom)

    def is_proportional(self, left: Quotient, right: Quotient) -> bool:
        """Whether one is the other times a constant that is not zero; both zero counts, one zero does not."""
        tops = self._times(left.top, right.bottom), self._times(right.top, left.bottom)
        if not tops[0] or not tops[1]:
            return not tops[0] and not tops[1]
        leads = _leading_constant(tops[0]), _leading_constant(tops[1])
        return self._times(tops[0], leads[1]) == self._times(tops[1], leads[0])

    def _term(self, term: Term) -> Quotient:
        name = term.name
        if name == "^":
            return self._power(*term.operands)
        if name == "sqrt" or (name == "root" and term.operands[1] == Number(Fraction(2))):
            return self._square_root(term.operands[0])
        if name not in ("+", "*", "/", "neg"):
            raise Refusal("not_an_integer")
        parts = [self.expand(operand) for operand in term.operands]
        if name == "neg":
            return self._multiply(parts[0], _constant(Fraction(-1)))
        result = parts[0]
        for part in parts[1:]:
            if name == "+":
                result = self._add(result, part)
            else:
                result = self._multiply(result, self._inverse(part) if name == "/" else part)
        return result

    def _power(self, base: Expression, exponent_expression: Expression) -> Quotient:
        exponent = exact_value(exponent_expression)
        if exponent == Fraction(1, 2):
            return self._square_root(base)
        if exponent.denominator != 1:
            raise Refusal("not_an_integer")
        if abs(exponent) > MAX_DEGREE:
            raise Refusal("too_large")
        factor = self.expand(base)
        factor = self._inverse(factor) if exponent < 0 else factor
        result = _constant(Fraction(1))
        for _ in range(abs(exponent.numerator)):
            result = self._multiply(result, factor)
        return result

    def _square_root(self, operand: Expression) -> Quotient:
        value = exact_value(operand)
        square, primes = _factored(abs(value.numerator * value.denominator))
        atoms = [("i", 1)] if value < 0 else []
        monomial = tuple(sorted([*atoms, *((f"√{prime}", 1) for prime in primes)]))
        return Quotient({monomial: Fraction(square, value.denominator)} if value else {}, _ONES)

    def _add(self, left: Quotient, right: Quotient) -> Quotient:
        if left.bottom == right.bottom:
            return Quotient(_sum(left.top, right.top), left.bottom)
        top = _sum(self._times(left.top, right.bottom), self._times(right.top, left.bottom))
        return Quotient(top, self._times(left.bottom, right.bottom))

    def _multiply(self, left: Quotient, right: Quotient) -> Quotient:
        return Quotient(self._times(left.top, right.top), self._times(left.bottom, right.bottom))

    def _inverse(self, quotient: Quotient) -> Quotient:
        if not quotient.top:
            raise Refusal("unparsable")
        return Quotient(quotient.bottom, quotient.top)

    def _times(self, left: Polynomial, right: Polynomial) -> Polynomial:
        self._num_products += len(left) * len(right)
        if self._num_products > MAX_MONOMIAL_PRODUCTS:
            raise Refusal("too_large")
        terms: dict[Monomial, Fraction] = {}
        for (first, a), (second, b) in product(left.items(), right.items()):
            monomial, factor = _joined(first, second)
            terms[monomial] = terms.get(monomial, Fraction(0)) + a * b * factor
        return _tidy(terms)


_ONES: Polynomial = {_ONE: Fraction(1)}


def letters_in(quotient: Quotient) -> frozenset[str]:
    """Letters that occur, constants left out."""
    atoms = {atom for part in (quotient.top, quotient.bottom) for monomial in part for atom, _ in monomial}
    return frozenset(atom for atom in atoms if _is_letter(atom))


def degree(quotient: Quotient) -> int:
    """The total degree in the letters of the top."""
    return max((sum(n for atom, n in monomial if _is_letter(atom)) for monomial in quotient.top), default=0)


def _constant(value: Fraction) -> Quotient:
    return Quotient({_ONE: value} if value else {}, _ONES)


def _is_letter(atom: str) -> bool:
    return atom not in _CONSTANTS and not atom.startswith("√")


def _joined(left: Monomial, right: Monomial) -> tuple[Monomial, int]:
    """Their product, and the whole number that squares of i and of roots leave before it."""
    exponents = dict(left)
    factor = 1
    for atom, exponent in right:
        total = exponents.get(atom, 0) + exponent
        if total == 2 and atom == "i":
            factor, total = -factor, 0
        elif total == 2 and atom.startswith("√"):
            factor, total = factor * int(atom[1:]), 0
        exponents[atom] = total
    return tuple(sorted((atom, exponent) for atom, exponent in exponents.items() if exponent)), factor


def _sum(left: Polynomial, right: Polynomial) -> Polynomial:
    terms = dict(left)
    for monomial, value in right.items():
        terms[monomial] = terms.get(monomial, Fraction(0)) + value
    return _tidy(terms)


def _tidy(terms: dict[Monomial, Fraction]) -> Polynomial:
    tidy = {monomial: value for monomial, value in terms.items() if value}
    largest = max((max(v.numerator.bit_length(), v.denominator.bit_length()) for v in tidy.values()), default=0)
    if len(tidy) > MAX_MONOMIALS or largest > MAX_BITS:
        raise Refusal("too_large")
    return tidy


def _leading_constant(polynomial: Polynomial) -> Polynomial:
    """What stands before the greatest product of letters: a polynomial in constants only."""
    parts = [
        (tuple(pair for pair in monomial if _is_letter(pair[0])), monomial, value)
        for monomial, value in polynomial.items()
    ]
    lead = max(letters for letters, _, _ in parts)
    return {
        tuple(pair for pair in monomial if not _is_letter(pair[0])): value
        for letters, monomial, value in parts
        if letters == lead
    }


def _factored(number: int) -> tuple[int, tuple[int, ...]]:
    """The root of the largest square factor, and the primes of what is left, by trial division."""
    if number > MAX_RADICAND:
        raise Refusal("not_an_integer")
    square, primes, divisor = 1, [], 2
    while divisor * divisor <= number:
        count = 0
        while number % divisor == 0:
            number //= divisor
            count += 1
        square *= divisor ** (count // 2)
        primes.extend([divisor] * (count % 2))
        divisor += 1
    return square, tuple([*primes, number] if number > 1 else primes)
