"""Whether two expressions are the same, by a computer algebra system. Pure but for the `Algebra` it is given.

Knows trees that `answer_values.read_expression` has read. Runs in `equivalence_worker.py`'s process, since any of this
may take for ever.
"""

from __future__ import annotations

import random
from fractions import Fraction

from mathlete.verify.answer_values import read_expression
from mathlete.verify.arithmetic import Refusal
from mathlete.verify.equation_judgement import Algebra
from mathlete.verify.equivalence import Equivalence
from mathlete.verify.expressions import Expression, Number, Symbol, Term, symbols_in

NUM_POINTS = 4
"""At which functions of letters are compared; one at which they differ is enough."""


def judge_texts(left: str, right: str, algebra: Algebra) -> Equivalence:
    """Compare two expressions as written. SAME by simplification, DIFFERENT by rigorous bounds, or UNKNOWN."""
    try:
        trees = read_expression(left).expression, read_expression(right).expression
        letters = sorted({*symbols_in(trees[0]), *symbols_in(trees[1])} - {"pi"})
        if "i" in letters:
            return _by_simplification(*trees, algebra)
        return _of_functions(*trees, letters, algebra) if letters else _of_numbers(*trees, algebra)
    except Refusal as refusal:
        return Equivalence("UNKNOWN", f"not compared: {refusal.reason}", "unparsable")


def _of_numbers(left: Expression, right: Expression, algebra: Algebra) -> Equivalence:
    if algebra.difference_sign(left, right) is not None:
        return Equivalence("DIFFERENT", "unequal by rigorous bounds")
    return _by_simplification(left, right, algebra)


def _of_functions(left: Expression, right: Expression, letters: list[str], algebra: Algebra) -> Equivalence:
    """Unequal when they are at a point with positive coordinates, all multiples of pi for the sake of angles."""
    generator = random.Random(" ".join(letters))
    for _ in range(NUM_POINTS):
        point = {letter: Fraction(generator.randint(3, 99), generator.randint(100, 199)) for letter in letters}
        try:
            sign = algebra.difference_sign(_at(left, point), _at(right, point))
        except Refusal:
            continue
        if sign is not None:
            if set(symbols_in(left)) != set(symbols_in(right)):
                return Equivalence("UNKNOWN", "functions of different letters")
            return Equivalence("DIFFERENT", "unequal at a point, by rigorous bounds")
    return _by_simplification(left, right, algebra)


def _by_simplification(left: Expression, right: Expression, algebra: Algebra) -> Equivalence:
    if algebra.is_identical(left, right):
        return Equivalence("SAME", "equal by simplification")
    return Equivalence("UNKNOWN", "not shown to be equal or unequal")


def _at(expression: Expression, point: dict[str, Fraction]) -> Expression:
    """With each letter replaced by its multiple of pi."""
    if isinstance(expression, Symbol) and expression.name in point:
        return Term("*", (Number(point[expression.name]), Symbol("pi")))
    if isinstance(expression, Term):
        return Term(expression.name, tuple(_at(operand, point) for operand in expression.operands))
    return expression
