r"""The equations that a running text claims, with their places: pairs of sides out of formulas and sentences.

Knows how mathematicians write; judges nothing (`equation_judgement.py` does). Precision before recall: a definition
("Let x = 3", f(x) = ...), the value of a letter, an approximation, code, quantities with units between the sides and
whatever does not end cleanly are not taken. What is claimed only under a doubt (a condition, a question, a
contradiction, arithmetic modulo something, ...) is taken with that doubt, and is then never called wrong. What makes
it doubtful may stand far before it, so a piece of a text is read with its context.

Glossary: a *clause* is a stretch of tokens between separators at one depth of brackets; it is cut by its *relations*
(=, <, ...) into *sides*; each relation with the sides beside it is a *claim*. Words may stand before the left side
and behind the right side of a claim, nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from mathlete.verify.claim_context import Doubt, Setting, doubt_about, setting_of
from mathlete.verify.claim_sides import goes_on_before, goes_on_behind, left_core, right_core
from mathlete.verify.clauses import Clause, clauses
from mathlete.verify.formula_zones import Zone, zones
from mathlete.verify.math_tokens import MathToken, latex_tokens, plain_tokens

MAX_TEXT_CHARS = 100_000
"""Longer texts are not read at all."""
MAX_CLAIMS = 400
"""Of one text; what comes after is not taken."""

Relation = Literal["=", "<", "<=", ">", ">=", "equiv"]
RELATIONS: tuple[Relation, ...] = ("=", "<", "<=", ">", ">=", "equiv")


@dataclass(frozen=True, slots=True)
class Claim:
    """One relation between two sides, as written.

    Attributes:
        start: index of the first character of the left side in the text.
        end: index behind the right side (and the modulus, where there is one).
        text: what stands there.
        relation: between the sides; "equiv" and, with a modulus, "=" are congruences.
        left: tokens of the left side.
        right: tokens of the right side.
        modulus: tokens of the modulus; empty when there is none.
        is_latex: it stands in a formula, and not in a plain sentence.
        doubt: why it may not be called wrong, or None.
        has_unit: a word or a currency sign belongs to one of the sides: it may change units.
    """

    start: int
    end: int
    text: str
    relation: Relation
    left: tuple[MathToken, ...]
    right: tuple[MathToken, ...]
    modulus: tuple[MathToken, ...] = ()
    is_latex: bool = True
    doubt: Doubt | None = None
    has_unit: bool = False


def claims_in(text: str, context: str = "") -> tuple[Claim, ...]:
    """The claims of a text, in order of their relation signs; none where it and its context exceed `MAX_TEXT_CHARS`.

    Args:
        text: whose claims are taken; their places are places in it.
        context: what stands directly before it: claims in it are not taken, but it tells how those of `text` are meant.
    """
    if len(context) + len(text) > MAX_TEXT_CHARS:
        return ()
    own = (claim for claim in _claims_behind(context + text, len(context)) if claim.start >= len(context))
    claims = [_moved(claim, -len(context)) for claim in islice(own, MAX_CLAIMS)]
    return tuple(sorted(claims, key=lambda claim: (claim.right[0].start, claim.start)))


def _moved(claim: Claim, by: int) -> Claim:
    """The claim with its place moved; its tokens keep theirs, which only tell what stands beside what."""
    return replace(claim, start=claim.start + by, end=claim.end + by)


def _claims_behind(text: str, first: int) -> Iterator[Claim]:
    """The claims of all zones that reach beyond character `first`."""
    setting = setting_of(text)
    for zone in zones(text):
        if zone.kind == "code" or zone.end <= first:
            continue
        tokens = _tokens(text, zone)
        for clause in clauses(tokens):
            yield from _claims_of(text, tokens, clause, zone, setting)


def _tokens(text: str, zone: Zone) -> list[MathToken]:
    if zone.kind == "latex":
        return _with_rows_joined(latex_tokens(text, zone.start, zone.end))
    tokens = plain_tokens(text, zone.start, zone.end)
    if zone.start > 0:  # a formula or code stands before and behind
        tokens.insert(0, MathToken("other", "zone", zone.start, zone.start))
    if zone.end < len(text):
        tokens.append(MathToken("other", "zone", zone.end, zone.end))
    return tokens


def _with_rows_joined(tokens: list[MathToken]) -> list[MathToken]:
    """A row that begins with a relation goes on with the row before; any other row stands for itself."""
    joined: list[MathToken] = []
    for index, token in enumerate(tokens):
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        if token.kind == "row" and following is not None and following.kind == "relation":
            while joined and joined[-1].kind == "separator" and joined[-1].text in (",", "."):
                joined.pop()
        elif token.kind == "row":
            joined.append(MathToken("separator", "row", token.start, token.end))
        else:
            joined.append(token)
    return joined


def _claims_of(text: str, tokens: Sequence[MathToken], clause: Clause, zone: Zone, setting: Setting) -> Iterator[Claim]:
    modulus_at, modulus = _modulus(tokens, clause)
    if modulus_at is not None and not modulus:
        return
    end = clause.end if modulus_at is None else modulus_at
    cuts = [clause.start - 1, *(place for place in clause.relations if place < end), end]
    is_latex = zone.kind == "latex"
    for index in range(1, len(cuts) - 1):
        relation = tokens[cuts[index]].text
        left = left_core(tokens, cuts[index - 1] + 1, cuts[index], is_latex)
        right = right_core(tokens, cuts[index] + 1, cuts[index + 1], clause.end, is_latex)
        if is_latex and (goes_on_before(text, zone, left, tokens) or goes_on_behind(text, zone, right, tokens)):
            continue
        if relation not in RELATIONS or not left or not right:
            continue
        if not _says_something(tokens, left, right, bool(modulus), is_latex, cuts[index - 1] + 1):
            continue
        sides = tokens[left.start : left.stop], tokens[right.start : right.stop]
        start, finish = sides[0][0].start, (modulus or sides[1])[-1].end
        doubt = doubt_about(text, start, finish, setting)
        has_symbols = any(token.kind == "symbol" for side in sides for token in side)
        if has_symbols and (doubt == "condition" or _is_definition(*sides)):
            continue
        yield Claim(
            start=start,
            end=finish,
            text=text[start:finish],
            relation=next(r for r in RELATIONS if r == relation),
            left=tuple(sides[0]),
            right=tuple(sides[1]),
            modulus=tuple(modulus),
            is_latex=is_latex,
            doubt=doubt,
            has_unit=_has_unit(tokens, left, right, clause.end),
        )


def _modulus(tokens: Sequence[MathToken], clause: Clause) -> tuple[int | None, list[MathToken]]:
    r"""Where "\\pmod{n}" or "(mod n)" begins in the clause and the tokens of n; an empty n cannot be read."""
    for index in range(clause.start, clause.end):
        token = tokens[index]
        opens = token.kind == "open" and token.text == "("
        following = tokens[index + 1] if index + 1 < clause.end else None
        in_bracket = opens and following is not None and following.text in ("mod", "pmod", "modulo")
        if not in_bracket and token.kind != "modulus":
            continue
        rest = [t for t in tokens[index + 1 + in_bracket : clause.end] if t.kind not in ("open", "close")]
        return index, rest if len(rest) == 1 and rest[0].kind == "number" else []
    return None, []


def _says_something(
    tokens: Sequence[MathToken], left: range, right: range, has_modulus: bool, is_latex: bool, side_start: int
) -> bool:
    """Whether the claim computes anything: "5 = 7" is more likely a case of a proof than a step of a computation."""
    operators = [t for i in (*left, *right) for t in (tokens[i],) if t.kind in ("operator", "function")]
    lone_left = len(left) == 1 and not is_latex and left.start > side_start
    if lone_left or _adds_references(tokens, left):
        return False  # "Week 3 = 5 * 2"
    return bool(operators) or has_modulus


def _adds_references(tokens: Sequence[MathToken], left: range) -> bool:
    """Whether the side may add numbered equations: "(1) + (2)"."""
    if len(left) < 5:
        return False
    kinds = [tokens[left.start + offset].kind for offset in range(3)]
    return kinds == ["open", "number", "close"] and tokens[left.start + 3].text in ("+", "-")


def _is_definition(left: Sequence[MathToken], right: Sequence[MathToken]) -> bool:
    """Whether one side is a letter alone or f(x): its value or its definition, not a step."""
    return any(
        side[0].kind == "symbol"
        and (len(side) == 1 or (len(side) == 4 and side[1].text == "(" and side[3].text == ")"))
        for side in (left, right)
    )


def _has_unit(tokens: Sequence[MathToken], left: range, right: range, end: int) -> bool:
    if any(tokens[i].kind == "currency" for i in (*left, *right)):
        return True
    return right.stop < end and tokens[right.stop].kind == "word"
