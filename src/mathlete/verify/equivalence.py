r"""Whether two answers are the same: SAME, DIFFERENT, or UNKNOWN.

Knows what makes two forms of `answer_forms.py` equal. SAME is a proof: exact rationals, the normal form of
`polynomials.py`, or a computer algebra system's simplification. Nothing is the same because it could not be read,
because it took too long, or because its digits agree. The rules where mathematics leaves a choice:

- An equation is the same as another up to a constant factor that is not zero, and never more.
- A unit or a label ("x = 5") that only one side has is no difference where the numbers agree; two different units are
  UNKNOWN, and so is the same number, or are the same digits, in another base.
- Values side by side are a set: "1, -2" is "\{-2, 1\}". Brackets that only one side has are UNKNOWN.
- A decimal is exact: 0.33 is not 1/3. One with 15 digits or more may have been printed by a program: UNKNOWN.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

from mathlete.verify.answer_forms import Equation, Form, Infinite, Listed, Matrix, Words, read_form, solved_for
from mathlete.verify.answer_values import Value
from mathlete.verify.arithmetic import Refusal
from mathlete.verify.ceilings import MAX_QUESTIONS
from mathlete.verify.exact_values import exact_value
from mathlete.verify.expressions import Expression, Number, Symbol, Term, symbols_in
from mathlete.verify.interval_unions import interval_ends, joined_parts
from mathlete.verify.polynomials import Expansion, Quotient, degree, letters_in

ROUNDING_ERROR = Fraction(1, 10**9)
"""Relative; what is further apart was not made unequal by a program's rounding alone."""

Sameness = Literal["SAME", "DIFFERENT", "UNKNOWN"]


@dataclass(frozen=True, slots=True)
class Equivalence:
    """What was found.

    Attributes:
        verdict: SAME and DIFFERENT are proved; everything else is UNKNOWN.
        reason: for a person.
        failure: of an UNKNOWN: "unparsable" or "too_large" for an answer that was not read, "timeout" or "crash" of
            the algebra, "missing" without one; None where both were understood and it stays open.
    """

    verdict: Sameness
    reason: str
    failure: str | None = None


class ExpressionJudge(Protocol):
    """A computer algebra system behind a deadline."""

    def judge(self, left: str, right: str) -> Equivalence:
        """Compare two expressions, given as `answer_values.read_expression` reads them. Never raises."""
        ...


def equivalent(left: str, right: str, algebra: ExpressionJudge | None = None) -> Equivalence:
    """Compare two answers as written. Pure but for `algebra`, and never raises for what is written.

    Args:
        left: an answer, LaTeX or plain.
        right: another.
        algebra: asked for what exact arithmetic cannot tell (nested roots, sines, logarithms); without one that is
            UNKNOWN with failure "missing".
    """
    try:
        forms = read_form(left), read_form(right)
    except Refusal as refusal:
        failure = "too_large" if refusal.reason == "too_large" else "unparsable"
        return Equivalence("UNKNOWN", f"not read: {refusal.reason}", failure)
    try:
        return _Comparison(algebra).forms(*forms)
    except Refusal as refusal:
        failure = "too_large" if refusal.reason == "too_large" else "unparsable"
        return Equivalence("UNKNOWN", f"not compared: {refusal.reason}", failure)


class _Comparison:
    """One comparison, with its allowance of questions to the algebra."""

    def __init__(self, algebra: ExpressionJudge | None) -> None:
        self._algebra = algebra
        self._num_questions = 0

    def forms(self, left: Form, right: Form) -> Equivalence:
        match left, right:
            case Value(), Value():
                return self._values(left, right)
            case Listed(), Listed():
                return self._lists(left, right)
            case Equation(), Equation():
                return self._equations(left, right)
            case Matrix(), Matrix():
                return self._matrices(left, right)
            case Words(), Words():
                return _words(left, right)
            case Infinite(), Infinite():
                return _different("signs of infinity") if left.sign != right.sign else _same("infinity")
            case (Infinite(), Value()) | (Value(), Infinite()):
                return _different("infinity and a value")
            case (Equation() as equation, other) | (other, Equation() as equation):
                return self._labelled(equation, other)
            case (Listed() as listed, other) | (other, Listed() as listed):
                return self._one_of(listed, other)
        return _unknown("answers of different kinds")

    def _values(self, left: Value, right: Value) -> Equivalence:
        if left.base != right.base:
            return self._based(left, right)
        if left.unit == right.unit:
            return self._expressions(left, right)
        if left.unit and right.unit:
            return _unknown("different units")
        bare, measured = (left, right) if not left.unit else (right, left)
        if measured.unit == "degree" and "pi" in symbols_in(bare.expression):
            radians = Term("/", (Term("*", (measured.expression, Symbol("pi"))), Number(Fraction(180))))
            return self._expressions(bare, Value(radians, text=rf"\frac{{({measured.text})\pi}}{{180}}"))
        found = self._expressions(bare, measured)
        if found.verdict == "DIFFERENT" and measured.unit == "percent":
            share = Value(
                Term("/", (measured.expression, Number(Fraction(100)))), text=rf"\frac{{{measured.text}}}{{100}}"
            )
            if self._expressions(bare, share).verdict != "DIFFERENT":
                return _unknown("a percentage, or its value?")
        return found

    def _based(self, left: Value, right: Value) -> Equivalence:
        found = self._expressions(left, right)
        if found.verdict == "SAME":
            return _unknown("the same number, in another base")
        digits = {re.sub(r"_.*|[\s,]", "", value.text) for value in (left, right)}
        if found.verdict == "DIFFERENT" and len(digits) == 1:
            return _unknown("the same digits, and no base on one side")
        return found

    def _expressions(self, left: Value, right: Value) -> Equivalence:
        found = self._exactly(left.expression, right.expression)
        if found is None:
            found = self._ask(left, right)
        if found.verdict == "DIFFERENT" and _may_be_rounded(left, right):
            return _unknown("a decimal that a program may have rounded")
        return found

    def _exactly(self, left: Expression, right: Expression) -> Equivalence | None:
        """By exact arithmetic; None when that does not reach."""
        expansion = Expansion()
        try:
            normal = expansion.expand(left), expansion.expand(right)
            if expansion.is_same(*normal):
                return _same("equal exactly")
        except Refusal as refusal:
            if refusal.reason != "not_an_integer":
                raise
            return None
        letters = letters_in(normal[0]), letters_in(normal[1])
        if letters[0] - letters[1] and letters[1] - letters[0]:
            return _unknown("functions of different letters")
        has_letters = [bool(names) for names in letters]
        if any(has_letters) and not all(has_letters) and any(_is_product(quotient) for quotient in normal):
            return _unknown("a value, and a multiple of letters that may be a unit")
        return _different("unequal exactly")

    def _ask(self, left: Value, right: Value) -> Equivalence:
        if self._algebra is None:
            return Equivalence("UNKNOWN", 'needs SymPy: pip install "mathlete[tools]"', "missing")
        self._num_questions += 1
        if self._num_questions > MAX_QUESTIONS:
            return Equivalence("UNKNOWN", "too many hard expressions", "too_large")
        return self._algebra.judge(left.text, right.text)

    def _lists(self, left: Listed, right: Listed) -> Equivalence:
        kinds = {left.kind, right.kind}
        if kinds == {"ordered"}:
            return self._ordered(left, right)
        if "union" in kinds:
            parts = joined_parts(left), joined_parts(right)
            return (
                self._unordered(*parts)
                if None not in map(interval_ends, (*parts[0], *parts[1]))
                else self._unions(*parts)
            )
        if len(_labels(left.elements)) > 1 or len(_labels(right.elements)) > 1:
            if _labels(left.elements) != _labels(right.elements):
                return _unknown("several labels on one side only")
        found = self._unordered(left.elements, right.elements)
        if "ordered" in kinds and found.verdict == "SAME":
            return _unknown("brackets, and an order, on one side only")
        return found

    def _unions(self, left: Sequence[Form], right: Sequence[Form]) -> Equivalence:
        """Part by part; where an end is not known, parts may join unseen, so that only SAME is told."""
        found = self._unordered(left, right)
        if found.verdict == "SAME" or None not in map(interval_ends, (*left, *right)):
            return found
        return _unknown("parts that may join")

    def _ordered(self, left: Listed, right: Listed) -> Equivalence:
        if len(left.elements) != len(right.elements):
            return _different(f"{len(left.elements)} and {len(right.elements)} elements")
        if len(left.elements) == 2 and left.brackets != right.brackets:
            return _different(f"brackets {left.brackets} and {right.brackets}")
        return self._all(list(zip(left.elements, right.elements, strict=True)))

    def _matrices(self, left: Matrix, right: Matrix) -> Equivalence:
        shapes = [(len(matrix.rows), len(matrix.rows[0])) for matrix in (left, right)]
        if shapes[0] != shapes[1]:
            return _different("matrices of different shapes")
        pairs = [pair for rows in zip(left.rows, right.rows, strict=True) for pair in zip(*rows, strict=True)]
        return self._all(pairs)

    def _all(self, pairs: Sequence[tuple[Form, Form]]) -> Equivalence:
        """SAME when every pair is, DIFFERENT when one is."""
        doubt = None
        for left, right in pairs:
            found = self.forms(left, right)
            if found.verdict == "DIFFERENT":
                return found
            doubt = doubt or (found if found.verdict == "UNKNOWN" else None)
        return doubt or _same("equal element by element")

    def _unordered(self, left: Sequence[Form], right: Sequence[Form]) -> Equivalence:
        """SAME when each element has its like on the other side; DIFFERENT when one is unlike all."""
        found = [[self.forms(a, b) for b in right] for a in left]
        columns = [[row[index] for row in found] for index in range(len(right))]
        doubt = None
        for line in (*found, *columns):
            verdicts = {cell.verdict for cell in line}
            if "SAME" in verdicts:
                continue
            if verdicts <= {"DIFFERENT"}:
                return _different("an element that is on one side only")
            doubt = doubt or next(cell for cell in line if cell.verdict == "UNKNOWN")
        return doubt or _same("the same elements")

    def _one_of(self, listed: Listed, other: Form) -> Equivalence:
        """A list against something that is none."""
        if len(listed.elements) == 1:
            return self.forms(listed.elements[0], other)
        if isinstance(other, Value | Infinite) and listed.kind in ("set", "loose"):
            found = self._unordered(listed.elements, [other])
            return found if found.verdict != "SAME" else _unknown("a list of one value")
        if listed.kind == "ordered" and isinstance(other, Value | Infinite) and not _may_be_number(listed):
            return _different("several values and one")
        return _unknown("answers of different kinds")

    def _equations(self, left: Equation, right: Equation) -> Equivalence:
        solved = solved_for(left), solved_for(right)
        try:
            expansion = Expansion()
            sides = _difference(left, expansion), _difference(right, expansion)
            if expansion.is_proportional(*sides):
                return _same("the same equation up to a factor")
        except Refusal as refusal:
            if refusal.reason not in ("not_an_integer", "too_large"):
                raise
            if solved[0] is None or solved[1] is None or solved[0][0] != solved[1][0]:
                return _unknown("equations beyond exact arithmetic")
            return self.forms(solved[0][1], solved[1][1])
        if letters_in(sides[0]) != letters_in(sides[1]):
            return _unknown("equations in different letters")
        if degree(sides[0]) != degree(sides[1]):
            return _unknown("equations of different degrees may have the same solutions")
        return _different("not the same equation up to a factor")

    def _labelled(self, equation: Equation, other: Form) -> Equivalence:
        """An equation such as "x = 5" against something that is none."""
        solved = solved_for(equation)
        if solved is None or solved[0] in symbols_in(solved[1].expression):
            return _unknown("an equation on one side only")
        return self.forms(solved[1], other)


def _may_be_number(listed: Listed) -> bool:
    """Whether "(1,234)" may stand for 1234."""
    return listed.brackets == "()" and all(
        isinstance(part, Value) and re.fullmatch("[0-9]{3}", part.text) for part in listed.elements[1:]
    )


def _is_product(quotient: Quotient) -> bool:
    return len(quotient.top) == 1 and bool(letters_in(quotient))


def _difference(equation: Equation, expansion: Expansion) -> Quotient:
    sides = equation.left.expression, equation.right.expression
    return expansion.expand(Term("+", (sides[0], Term("neg", (sides[1],)))))


def _words(left: Words, right: Words) -> Equivalence:
    if left.text == right.text:
        return _same("the same words")
    if " " in left.text or " " in right.text:
        return _unknown("different words may say the same")
    return _different("different words")


def _labels(elements: Sequence[Form]) -> frozenset[str]:
    solved = [solved_for(element) for element in elements if isinstance(element, Equation)]
    return frozenset(label[0] for label in solved if label is not None)


def _may_be_rounded(left: Value, right: Value) -> bool:
    """Whether one is a decimal as long as a program prints a rounded one, and the other is close or irrational."""
    if not any(re.search(r"(?=[0-9.]{16})[0-9]*\.[0-9]+", value.text) for value in (left, right)):
        return False
    try:
        values = exact_value(left.expression), exact_value(right.expression)
    except Refusal:
        return True
    return abs(values[0] - values[1]) <= max(map(abs, values)) * ROUNDING_ERROR


def _same(reason: str) -> Equivalence:
    return Equivalence("SAME", reason)


def _different(reason: str) -> Equivalence:
    return Equivalence("DIFFERENT", reason)


def _unknown(reason: str) -> Equivalence:
    return Equivalence("UNKNOWN", reason)
