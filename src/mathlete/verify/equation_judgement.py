"""Whether a claimed equation is right: exact numbers first, then whatever needs algebra.

Pure, and the second half of `equations_in_text.py`. A claim is REFUTED only when it is false as written, whatever its
letters stand for; an equation that holds for some values is a condition and UNKNOWN, and so is everything that could
be read in a way in which it holds. Needs an `Algebra` for symbols and irrational numbers, and says so without one.

The rule for decimals: an equation holds exactly, or else each decimal in it stands for anything within one unit of
its last place (rounded or cut off). If no such values make it hold it is REFUTED; a lone decimal within half a unit
of the other side's exact value is SUPPORTED; whatever lies between is UNKNOWN. A whole number that is the other
side's value rounded up or down is UNKNOWN too.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

from mathlete.core.selection import Verdict
from mathlete.verify.arithmetic import Refusal
from mathlete.verify.equations_in_text import Claim
from mathlete.verify.exact_values import exact_value, has_decimals, possible_values, residue
from mathlete.verify.expression_parser import READINGS, parse_expression
from mathlete.verify.expressions import Expression, Number, Term, names_in, symbols_in
from mathlete.verify.math_tokens import MathToken

NUM_POINTS = 8
"""Random rational points at which an identity is evaluated."""
MAX_SPREAD = 12
"""Denominators of their coordinates; these are of either sign."""
_UNIT_FACTORS = frozenset(
    Fraction(n) for n in (7, 12, 16, 24, 30, 36, 52, 60, 365, 1760, 2000, 3600, 5280, *(10**k for k in range(1, 10)))
)
_SPECIAL = frozenset({"i", "e", r"\omega", "j", r"\zeta", r"\phi", r"\varphi"})
"""Letters that are often constants with relations of their own."""


class Algebra(Protocol):
    """What needs a computer algebra system; every method is bounded by its process's limits, not by itself."""

    def difference_sign(self, left: Expression, right: Expression) -> int | None:
        """Sign of left - right of closed expressions, rigorously; None when it is zero or too close to tell."""
        ...

    def is_identical(self, left: Expression, right: Expression) -> bool:
        """Whether simplification shows that both are the same."""
        ...

    def constant_difference(self, left: Expression, right: Expression) -> Fraction | None:
        """Left - right where simplification shows that it is one rational number; None otherwise."""
        ...


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found.

    Attributes:
        verdict: as in `Evidence`.
        failure: "unparsable" when a side was not understood or is beyond a ceiling, "missing" without an `Algebra`,
            "crash" when judging failed.
        detail: values, counterexample or reason, for a person.
    """

    verdict: Verdict
    failure: Literal["unparsable", "missing", "crash"] | None = None
    detail: str = ""


def judge(claim: Claim, algebra: Algebra | None) -> Judgement:
    """Judge one claim. Never raises for what is written in it."""
    found: list[Judgement] = []
    for reading in READINGS if _is_doubtful(claim) else READINGS[:1]:
        try:
            left, right = parse_expression(claim.left, reading), parse_expression(claim.right, reading)
            judgement = _judge_sides(claim, left, right, algebra)
        except Refusal as refusal:
            return Judgement("UNKNOWN", "unparsable", refusal.reason)
        if judgement.verdict in ("PROVED", "SUPPORTED"):
            return judgement
        found.append(judgement)
    unknown = [judgement for judgement in found if judgement.verdict != "REFUTED"]
    if unknown:
        return unknown[0]
    return _defended(claim, found[0])


def _is_doubtful(claim: Claim) -> bool:
    """Whether a mixed number or a sign before a power may occur."""
    tokens = (*claim.left, *claim.right)
    return any(token.text in ("frac", "-") for token in tokens)


def _defended(claim: Claim, refuted: Judgement) -> Judgement:
    """The refutation, unless the text around it or a habit of writing speaks for the claim."""
    excused = claim.doubt is not None and not (claim.doubt == "modular" and claim.modulus)
    if excused:
        return Judgement("UNKNOWN", None, f"{refuted.detail}; but the text makes it doubtful ({claim.doubt})")
    return refuted


def _judge_sides(claim: Claim, left: Expression, right: Expression, algebra: Algebra | None) -> Judgement:
    if claim.modulus:
        return _judge_congruence(claim, left, right)
    if claim.relation == "equiv":
        return Judgement("UNKNOWN", None, "a congruence without its modulus, or an identity")
    symbols = {*symbols_in(left), *symbols_in(right)}
    if symbols - {"pi"}:
        return _judge_identity(claim, left, right, symbols, algebra)
    try:
        values = exact_value(left), exact_value(right)
    except Refusal as refusal:
        if refusal.reason != "not_an_integer":
            raise
        return _judge_irrational(claim, left, right, algebra)
    if "degree" in names_in(left) ^ names_in(right):
        return Judgement("UNKNOWN", None, "degrees on one side only")
    return _judge_numbers(claim, left, right, values)


def _judge_numbers(claim: Claim, left: Expression, right: Expression, values: tuple[Fraction, Fraction]) -> Judgement:
    detail = f"{_shown(values[0])} {claim.relation} {_shown(values[1])}"
    if _holds(claim.relation, values[0] - values[1]):
        return Judgement("PROVED", None, detail)
    if has_decimals(left) or has_decimals(right):
        return _judge_decimals(claim, left, right, values, detail)
    if claim.relation == "=" and (reason := _habit(claim, left, right, values)) is not None:
        return Judgement("UNKNOWN", None, f"{detail}; {reason}")
    return Judgement("REFUTED", None, detail)


def _habit(claim: Claim, left: Expression, right: Expression, values: tuple[Fraction, Fraction]) -> str | None:
    """Why a false equation of numbers may be meant otherwise, or None."""
    if _is_running_total(right, values[0]):
        return "a running total"
    if any(isinstance(s, Number) and v.denominator == 1 and o.denominator != 1 and abs(v - o) < 1
           for s, v, o in ((right, values[1], values[0]), (left, values[0], values[1]))):  # fmt: skip
        return "a whole number for a fraction"
    if not claim.is_latex and _is_flat_fraction(claim, values):
        return "maybe a fraction written in one line"
    if not claim.is_latex or claim.has_unit:
        if values[0] == -values[1] and isinstance(right, Number):
            return "maybe a difference without its sign"
        small, large = sorted(map(abs, values))
        if small != 0 and large / small in _UNIT_FACTORS:
            return "maybe a change of units"
    if (
        not claim.is_latex
        and len(claim.left) == 3
        and claim.left[1].text == "-"
        and claim.left[0].end == claim.left[1].start
        and claim.left[1].end == claim.left[2].start
    ):
        return "maybe a range"
    return None


def _is_flat_fraction(claim: Claim, values: tuple[Fraction, Fraction]) -> bool:
    """Whether it holds when "a + b / c + d" stands for the fraction of a + b and c + d, on either side or both."""
    lefts = {values[0], _as_one_fraction(claim.left)}
    rights = {values[1], _as_one_fraction(claim.right)}
    return not (lefts & rights) <= {None}


def _as_one_fraction(side: Sequence[MathToken]) -> Fraction | None:
    """The value of a side with all of it above or below its only "/"; None when it has none or several."""
    places = [index for index, token in enumerate(side) if token.text == "/"]
    if len(places) != 1:
        return None
    try:
        top, bottom = parse_expression(side[: places[0]]), parse_expression(side[places[0] + 1 :])
        return exact_value(top) / exact_value(bottom)
    except (Refusal, ZeroDivisionError):
        return None


def _is_running_total(right: Expression, value: Fraction) -> bool:
    """Whether the right side goes on computing from the left side's value: "5 + 3 = 8 + 2 = 10"."""
    while isinstance(right, Term) and right.name in ("+", "*", "/"):
        for end in range(1, len(right.operands)):
            try:
                if exact_value(right.operands[0] if end == 1 else Term("+", right.operands[:end])) == value:
                    return True
            except Refusal:
                return False
        right = right.operands[0]
    return False


def _judge_decimals(
    claim: Claim, left: Expression, right: Expression, values: tuple[Fraction, Fraction], detail: str
) -> Judgement:
    if claim.relation != "=":
        return Judgement("UNKNOWN", None, f"{detail}; decimals may be rounded")
    for side, own, other in ((left, *values), (right, values[1], values[0])):
        if isinstance(side, Number) and side.unit and not has_decimals(right if side is left else left):
            if abs(own - other) <= side.unit / 2:
                return Judgement("SUPPORTED", None, f"{detail}; equal when rounded")
    try:
        low, high = possible_values(left), possible_values(right)
    except Refusal:
        return Judgement("UNKNOWN", None, f"{detail}; decimals may be rounded")
    if low.low <= high.high and high.low <= low.high:
        return Judgement("UNKNOWN", None, f"{detail}; decimals may be rounded")
    if (reason := _habit(claim, left, right, values)) is not None:
        return Judgement("UNKNOWN", None, f"{detail}; {reason}")
    return Judgement("REFUTED", None, f"{detail}, and no rounding makes them equal")


def _judge_congruence(claim: Claim, left: Expression, right: Expression) -> Judgement:
    modulus = exact_value(parse_expression(claim.modulus))
    if modulus.denominator != 1 or modulus < 2 or claim.relation not in ("=", "equiv"):
        raise Refusal("unparsable")
    if set(symbols_in(left)) | set(symbols_in(right)):
        return Judgement("UNKNOWN", None, "a congruence with letters")
    residues = residue(left, modulus.numerator), residue(right, modulus.numerator)
    detail = f"residues {residues[0]} and {residues[1]} modulo {modulus}"
    return Judgement("PROVED" if residues[0] == residues[1] else "REFUTED", None, detail)


def _judge_irrational(claim: Claim, left: Expression, right: Expression, algebra: Algebra | None) -> Judgement:
    if algebra is None:
        return _needs_algebra()
    if has_decimals(left) or has_decimals(right):
        return Judgement("UNKNOWN", None, "decimals of an irrational number")
    sign = algebra.difference_sign(left, right)
    if sign is not None:
        verdict: Verdict = "PROVED" if _holds(claim.relation, Fraction(sign)) else "REFUTED"
        return Judgement(verdict, None, f"left side is {'greater' if sign > 0 else 'less'}")
    if claim.relation in ("<", ">"):
        return Judgement("UNKNOWN", None, "equal to 50 digits")
    if algebra.is_identical(left, right):
        return Judgement("PROVED", None, "equal by simplification")
    return Judgement("SUPPORTED", None, "equal to 50 digits")


def _judge_identity(
    claim: Claim, left: Expression, right: Expression, symbols: set[str], algebra: Algebra | None
) -> Judgement:
    """An equation with letters: an identity is PROVED, a condition stays UNKNOWN."""
    if claim.relation != "=":
        return Judgement("UNKNOWN", None, "an inequality with letters")
    if set(symbols_in(left)) != set(symbols_in(right)):
        return Judgement("UNKNOWN", None, "different letters on both sides: a condition")
    differences = _differences(left, right, sorted(symbols))
    if any(differences) and len(set(differences)) > 1:
        return Judgement("UNKNOWN", None, "holds for some values only: a condition on its letters")
    if algebra is None:
        return _needs_algebra()
    if not any(differences):
        if algebra.is_identical(left, right):
            return Judgement("PROVED", None, "an identity by simplification")
        if len(differences) < NUM_POINTS:
            return Judgement("UNKNOWN", None, "not decided")
        return Judgement("SUPPORTED", None, f"equal at {len(differences)} random rational points")
    if symbols & _SPECIAL or any("_" in name for name in symbols) or len(differences) < NUM_POINTS:
        return Judgement("UNKNOWN", None, "letters that may be special constants")
    difference = algebra.constant_difference(left, right)
    if difference is None:
        return Judgement("UNKNOWN", None, "not decided")
    return Judgement("REFUTED", None, f"the sides differ by {_shown(difference)} for all values")


def _differences(left: Expression, right: Expression, symbols: list[str]) -> list[Fraction]:
    """Left - right at random rational points, seeded; fewer where it is undefined or irrational."""
    generator = random.Random(f"{symbols}")
    differences: list[Fraction] = []
    for _ in range(NUM_POINTS):
        point: Mapping[str, Fraction] = {
            name: Fraction(
                generator.choice((-1, 1)) * generator.randint(2, 9 * MAX_SPREAD), generator.randint(1, MAX_SPREAD)
            )
            for name in symbols
        }
        try:
            differences.append(exact_value(left, point) - exact_value(right, point))
        except Refusal:
            continue
    return differences


def _needs_algebra() -> Judgement:
    return Judgement("UNKNOWN", "missing", 'needs SymPy: pip install "mathlete[tools]"')


def _holds(relation: str, difference: Fraction) -> bool:
    return {
        "=": difference == 0,
        "<": difference < 0,
        ">": difference > 0,
        "<=": difference <= 0,
        ">=": difference >= 0,
    }[relation]


def _shown(value: Fraction) -> str:
    text = (
        str(value)
        if max(value.numerator.bit_length(), value.denominator.bit_length()) < 400
        else f"{value.numerator.bit_length()} bits"
    )
    return text if len(text) <= 80 else text[:77] + "..."
