r"""The equations that a running text claims, with their places: pairs of sides out of formulas and sentences.

Knows how mathematicians write; judges nothing (`equation_judgement.py` does). Precision before recall: a definition
("Let x = 3", f(x) = ...), the value of a letter, an approximation, code, quantities with units between the sides and
whatever does not end cleanly are not taken. What is claimed only under a doubt (a condition, a question, a
contradiction, arithmetic modulo something) is taken with that doubt, and is then never called wrong.

Glossary: a *clause* is a stretch of tokens between separators at one depth of brackets; it is cut by its *relations*
(=, <, ...) into *sides*; each relation with the sides beside it is a *claim*. Words may stand before the left side
and behind the right side of a claim, nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mathlete.verify.formula_zones import Zone, zones
from mathlete.verify.math_tokens import MathToken, latex_tokens, plain_tokens

MAX_TEXT_CHARS = 100_000
"""Longer texts are not read at all."""
MAX_CLAIMS = 400
"""Of one text; what comes after is not taken."""
MAX_DEPTH = 32
"""Brackets in brackets; a deeper formula is not read."""

Doubt = Literal["condition", "question", "contradiction", "modular", "approximate"]
Relation = Literal["=", "<", "<=", ">", ">=", "equiv"]
RELATIONS: tuple[Relation, ...] = ("=", "<", "<=", ">", ">=", "equiv")

_OPERATOR_WORDS = frozenset(
    "of twice half double triple quadruple times plus minus by from and per over than to square squared cubed cube "
    "divided multiplied subtract subtracting add adding less more root log ln sin cos tan sqrt gcd lcm max min floor "
    "ceil abs x mod modulo choose or between through hundred thousand million billion dozen zero one two three four five "
    "six seven eight nine ten eleven twelve twenty thirty forty fifty negative not c p exponent power base "
    "approximately about roughly nearly around almost".split()
)
_CONTINUING_WORDS = frozenset(
    "times hundred thousand million billion trillion dozen dozens mod modulo remainder r plus minus over divided "
    "multiplied squared cubed of percent x choose factorial and".split()
)
_CONDITION = re.compile(
    r"\b(?:if|suppose|supposing|assume|assuming|let|unless|whether|when|whenever|define|defined|where|denote|denoted|set"
    r"|for|given|such that|solve|solving|want|need|require|consider|check|test|try|trying|would|could|should|might)\b",
    re.IGNORECASE,
)
_CONTRADICTION = re.compile(
    r"contradict|imposs|absurd|\bnot\b|n['’]t\b|\bfalse\b|\bfails?\b|\bwrong|incorrect|mistake|\berror|\bnever\b|\bcannot\b"
    r"|invalid|inconsisten|no solution|doesn|isn|instead of|\bwait\b|\bno\b|unequal|extraneous|violat",
    re.IGNORECASE,
)
_MODULAR = re.compile(
    r"\bmod(?:ulo|ular)?\b|\\[bp]?mod\b|\\equiv|≡|\bbases?\b|binary|hexadecimal|\boctal|residue|congru|remainder|\bclock\b"
    r"|\\mathbb\{?[ZF]\}?_|\bunits? digit|last (?:two |three )?digits?|ternary|time zone|o['’]clock|\b[ap]\.?m\b",
    re.IGNORECASE,
)
_APPROXIMATE = re.compile(
    r"approx|\babout\b|roughly|nearly|almost|≈|round|estimat|to the nearest|decimal place|significant|\bclose to\b",
    re.IGNORECASE,
)
_SENTENCE_BREAK = re.compile(r"[.!?](?=\s)|\n[ \t]*\n")
_CLAUSE_BREAK = re.compile(r"[.;:](?=\s)|,|\bthen\b|\bwe (?:get|have|find|obtain)\b|\bgives?\b|\n", re.IGNORECASE)
_WINDOW = 240
"""How far around a claim its sentence is looked at."""


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


def claims_in(text: str) -> tuple[Claim, ...]:
    """The claims of a text, in order of their relation signs; none of one longer than `MAX_TEXT_CHARS`."""
    if len(text) > MAX_TEXT_CHARS:
        return ()
    claims: list[Claim] = []
    for zone in zones(text):
        if zone.kind == "code":
            continue
        tokens = _tokens(text, zone)
        for clause in _clauses(tokens):
            claims.extend(_claims_of(text, tokens, clause, zone))
            if len(claims) >= MAX_CLAIMS:
                break
    return tuple(sorted(claims, key=lambda claim: (claim.right[0].start, claim.start))[:MAX_CLAIMS])


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


@dataclass(frozen=True, slots=True)
class _Clause:
    """Tokens from `start` to `end`, and the places of the relations among them at the clause's own depth."""

    start: int
    end: int
    relations: tuple[int, ...]


class _Level:
    """An open bracket while clauses are cut."""

    def __init__(self, opening: str, start: int) -> None:
        self.opening = opening
        self.start = start
        self.relations: list[int] = []
        self.is_list = False


_CLOSERS = {")": "(", "]": "[", "}": "{", r"\rfloor": r"\lfloor", r"\rceil": r"\lceil", r"\rvert": r"\lvert"}


def _clauses(tokens: Sequence[MathToken]) -> Iterator[_Clause]:
    """Cut at separators and brackets; only clauses with a relation.

    A bracket holds a clause only when it is closed and has no separator in it; a sentence or line that ends inside
    a bracket gives nothing.
    """
    levels = [_Level("", 0)]
    for index, token in enumerate(tokens):
        level = levels[-1]
        if token.kind == "relation":
            level.relations.append(index)
        elif token.kind == "separator" and (len(levels) == 1 or token.text == "\n"):
            if len(levels) == 1:
                yield from _closed(level, index)
            levels = [_Level("", index + 1)]
        elif token.kind == "separator":
            level.is_list = True
        elif token.kind == "open":
            is_box = token.text == "{" and token.end - token.start > 1
            levels.append(_Level("box" if is_box else token.text, index + 1))
            if len(levels) > MAX_DEPTH:
                return
        elif token.kind == "close":
            opening = _CLOSERS[token.text]
            if level.opening == opening or (level.opening == "box" and opening == "{"):
                if not level.is_list and _may_hold_clause(tokens, level):
                    yield from _closed(level, index)
                levels.pop()
            elif len(levels) == 1:  # "1)" begins an item of a list
                yield from _closed(level, index)
                levels = [_Level("", index + 1)]
            else:
                return
    if len(levels) == 1:
        yield from _closed(levels[0], len(tokens))


def _closed(level: _Level, end: int) -> Iterator[_Clause]:
    if level.relations:
        yield _Clause(level.start, end, tuple(level.relations))


def _may_hold_clause(tokens: Sequence[MathToken], level: _Level) -> bool:
    """Whether a bracket is a remark ("(so 2 + 3 = 5)") or a box, and not an argument or an index."""
    if level.opening == "box":
        return True
    if level.opening != "(":
        return False
    first = level.start - 1
    while first > 0 and tokens[first].kind != "open":
        first -= 1
    before = tokens[first - 1] if first > 0 else None
    if before is None or before.kind in ("separator", "relation"):
        return True
    return before.kind in ("word", "number", "close") and before.end < tokens[first].start


def _claims_of(text: str, tokens: Sequence[MathToken], clause: _Clause, zone: Zone) -> Iterator[Claim]:
    modulus_at, modulus = _modulus(tokens, clause)
    if modulus_at is not None and not modulus:
        return
    end = clause.end if modulus_at is None else modulus_at
    cuts = [clause.start - 1, *(place for place in clause.relations if place < end), end]
    is_latex = zone.kind == "latex"
    for index in range(1, len(cuts) - 1):
        relation = tokens[cuts[index]].text
        left = _left_core(tokens, cuts[index - 1] + 1, cuts[index], is_latex)
        right = _right_core(tokens, cuts[index] + 1, cuts[index + 1], clause.end, is_latex)
        if is_latex and (_goes_on_before(text, zone, left, tokens) or _goes_on_behind(text, zone, right, tokens)):
            continue
        if relation not in RELATIONS or not left or not right:
            continue
        if not _says_something(tokens, left, right, bool(modulus), is_latex, cuts[index - 1] + 1):
            continue
        sides = tokens[left.start : left.stop], tokens[right.start : right.stop]
        start, finish = sides[0][0].start, (modulus or sides[1])[-1].end
        doubt = _doubt(text, start, finish, zone)
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


_OPERATOR_BEFORE = re.compile(r"[-+*/^×·÷=(]\s*$")
_OPERATOR_BEHIND = re.compile(r"\\?\$?\s*(?:\$\s*)?(?:[!%°^+*/×·÷(]|-\s*[0-9$\\(]|\\%)")


def _goes_on_before(text: str, zone: Zone, left: range, tokens: Sequence[MathToken]) -> bool:
    """Whether the formula only continues what a plain text before it computes."""
    if left.start > 0 or not left:
        return False
    return _OPERATOR_BEFORE.search(text[max(0, zone.start - 6) : zone.start].rstrip("$\\[(")) is not None


def _goes_on_behind(text: str, zone: Zone, right: range, tokens: Sequence[MathToken]) -> bool:
    """Whether a plain text behind the formula goes on computing: "... = 13$ ! $"."""
    if right.stop < len(tokens) or not right:
        return False
    behind = text[zone.end : zone.end + 8].removeprefix("\\]").removeprefix("\\)").removeprefix("$").removeprefix("$")
    return _OPERATOR_BEHIND.match(behind.lstrip(" ")) is not None


def _modulus(tokens: Sequence[MathToken], clause: _Clause) -> tuple[int | None, list[MathToken]]:
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


def _left_core(tokens: Sequence[MathToken], start: int, stop: int, is_latex: bool) -> range:
    """The end of a side that can be the left of a claim: back from its relation sign to the last word."""
    first = stop
    depth = 0
    while first > start:
        token = tokens[first - 1]
        if token.kind == "close":
            depth += 1
        elif token.kind == "open":
            depth -= 1
        elif depth == 0 and token.kind in ("word", "other", "separator", "modulus"):
            break
        first -= 1
    if first == stop:
        return range(0)
    if first > start:
        before, head = tokens[first - 1], tokens[first]
        if before.kind != "word" or before.text.split()[-1:] == [] or before.text.split()[-1] in _OPERATOR_WORDS:
            return range(0)
        if head.kind == "operator" and head.text != "|":
            return range(0)
        if first - start > 1 and tokens[first - 2].kind == "operator":
            return range(0)  # "/ metre 3 = ..."
        if before.end == head.start and (head.kind == "open" or not is_latex):
            return range(0)  # f(2)
    elif start > 1 and tokens[start - 2].kind == "operator":
        return range(0)  # "2 + . 84 = ..."
    return range(first, stop)


def _right_core(tokens: Sequence[MathToken], start: int, stop: int, end: int, is_latex: bool) -> range:
    """The beginning of a side that can be the right of a claim: on from its relation sign to the first word."""
    last, depth = start, 0
    while last < stop:
        token = tokens[last]
        if depth == 0 and token.kind in ("word", "other", "separator"):
            break
        if depth == 0 and token.kind == "open" and last > start and _is_remark(tokens, last, end, is_latex):
            break
        depth += (token.kind == "open") - (token.kind == "close")
        last += 1
    if last == start:
        return range(0)
    if last < len(tokens) and last < end:
        behind = tokens[last]
        if behind.kind == "other" or (behind.kind == "word" and behind.text.split()[:1] == []):
            return range(0)
        if behind.kind == "word" and behind.text.split()[0] in _CONTINUING_WORDS:
            return range(0)
    return range(start, last)


def _is_remark(tokens: Sequence[MathToken], opening: int, end: int, is_latex: bool) -> bool:
    """Whether the bracket holds words, as in "= 8 (apples)"."""
    if is_latex or tokens[opening].text != "(":
        return False
    for index in range(opening + 1, end):
        if tokens[index].kind == "close":
            return False
        if tokens[index].kind in ("word", "relation"):
            return True
    return False


def _says_something(
    tokens: Sequence[MathToken], left: range, right: range, has_modulus: bool, is_latex: bool, side_start: int
) -> bool:
    """Whether the claim computes anything: "5 = 7" is more likely a case of a proof than a step of a computation."""
    operators = [t for i in (*left, *right) for t in (tokens[i],) if t.kind in ("operator", "function")]
    lone_left = len(left) == 1 and not is_latex and left.start > side_start
    if lone_left:
        return False  # "Week 3 = 5 * 2"
    return bool(operators) or has_modulus


def _is_definition(left: Sequence[MathToken], right: Sequence[MathToken]) -> bool:
    """Whether one side is a letter alone: its value, not a step."""
    return any(len(side) == 1 and side[0].kind == "symbol" for side in (left, right))


def _has_unit(tokens: Sequence[MathToken], left: range, right: range, end: int) -> bool:
    if any(tokens[i].kind == "currency" for i in (*left, *right)):
        return True
    return right.stop < end and tokens[right.stop].kind == "word"


def _doubt(text: str, start: int, end: int, zone: Zone) -> Doubt | None:
    """What in the sentence around a claim forbids calling it wrong."""
    before, behind = text[max(0, start - _WINDOW) : start], text[end : end + _WINDOW]
    breaks = list(_SENTENCE_BREAK.finditer(before))
    sentence_before = before[breaks[-1].end() :] if breaks else before
    stop = _SENTENCE_BREAK.search(behind)
    rest = behind[: stop.end()] if stop else behind
    if rest.rstrip().endswith("?") or text[end : end + 3].strip().startswith("?"):
        return "question"
    clause_breaks = list(_CLAUSE_BREAK.finditer(sentence_before))
    clause = sentence_before[clause_breaks[-1].end() :] if clause_breaks else sentence_before
    if _CONDITION.search(clause):
        return "condition"
    following = behind[:_WINDOW]
    if _CONTRADICTION.search(sentence_before) or _CONTRADICTION.search(following):
        return "contradiction"
    if _MODULAR.search(before) or _MODULAR.search(following) or _MODULAR.search(text[start:end]):
        return "modular"
    if _APPROXIMATE.search(sentence_before) or _APPROXIMATE.search(rest):
        return "approximate"
    return None
