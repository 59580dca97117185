"""What in the text around an equation forbids calling it wrong. Knows words, not what the equation says.

Two reaches: most words count in the sentence of the equation or close by; a *setting* (arithmetic modulo something or
in another base, a proof by contradiction, a sign with a meaning of its own) holds from where it stands to the end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Doubt = Literal[
    "condition", "question", "contradiction", "supposition", "reported", "modular", "operation", "approximate"
]

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
_SUPPOSITION = re.compile(r"\b(?:suppos(?:e[sd]?|ing)|assum(?:e[sd]?|ing|ption))\b", re.IGNORECASE)
_REPORTED = re.compile(
    r"\b(?:claim(?:s|ed|ing)?|say(?:s|ing)|said|believe[sd]?|think(?:s|ing)|thought|argue[sd]?|suggest(?:s|ed)?"
    r"|propose[sd]?|writes|wrote|assert(?:s|ed)?|guess(?:es|ed)?|alleged(?:ly)?|some(?:one|body)"
    r"|(?:an?|one|another) (?:\w+ )?(?:student|pupil|friend|beginner))\b",
    re.IGNORECASE,
)
_MODULAR = re.compile(
    r"\bmod(?:ulo|ular)?\b|\bxor\b|⊕|\\oplus|\\[bp]?mod\b|\\equiv|≡|\bbases?\b|binary|hexadecimal|\boctal|residue|congru|remainder|\bclock\b"
    r"|\bunits? digit|last (?:two |three )?digits?|ternary|time zone|o['’]clock|\b[ap]\.?m\b",
    re.IGNORECASE,
)
_APPROXIMATE = re.compile(
    r"approx|\babout\b|roughly|nearly|almost|≈|round|estimat|to the nearest|decimal place|significant|\bclose to\b",
    re.IGNORECASE,
)
_MODULAR_SETTING = re.compile(
    r"\bmod(?:ulo|ular|uli|ulus)?\b|\bxor\b|⊕|\\oplus|\\[bp]?mod\b|\\equiv|≡|binary|hexadecimal|\boctal|ternary"
    r"|\bresidues?\b|\bcongruences?\b|\bclock arithmetic|\bfinite field"
    r"|(?-i:\\math(?:bb|bf|rm)\s*\{?\s*[ZF]\s*\}?\s*[_/]|\\[ZF]\s*_|ℤ\s*[_/]|\bGF\()"
    r"|\b(?:number|numeral) bases?\b|\bbases?[-~\s]+\\?[$(]?\s*(?:[0-9]|[b-z]\b|two|three|four|five|six|seven"
    r"|eight|nine|ten\b|eleven|twelve)",
    re.IGNORECASE,
)
_CONTRADICTION_SETTING = re.compile(
    r"\b(?:suppos|assum)\w+\b[^.!?\n]{0,160}?\b(?:contradict\w+|contrary|otherwise|not)\b"
    r"|\b(?:for|by|to|towards?|reach|derive|obtain|get)\s+(?:the\s+sake\s+of\s+|an?\s+)?contradiction|\breductio\b",
    re.IGNORECASE,
)
_STAR = r"[*∗⋆]|\\(?:ast|star)(?![A-Za-z])"
_OTHER_SIGN = r"[-+/^×·⋅÷−]|\\(?:times|cdot|div)(?![A-Za-z])"
_SIGN = re.compile(rf"{_STAR}|{_OTHER_SIGN}")
_OPERATION = re.compile(
    rf"(?<![A-Za-z\\])[A-Za-z]\s*(?:(?P<star>{_STAR})|(?P<other>{_OTHER_SIGN}))\s*[A-Za-z](?![A-Za-z])\s*(?:\$|\\\))?"
    rf"\s*(?::?=(?!=)|\\coloneqq|(?:be|as|is|to be|denotes?|means?)\b)"
    rf"|\b(?:operat(?:ion|or)|symbol)s?\s*(?:\$|\\\(|[\"'(`“])?\s*(?P<named>{_STAR}|{_OTHER_SIGN})",
    re.IGNORECASE,
)
_DEFINES = re.compile(r"\bdefin|\bdenote|\boperation|\boperator", re.IGNORECASE)
_SENTENCE_BREAK = re.compile(r"[.!?](?=\s)|\n[ \t]*\n")
_CLAUSE_BREAK = re.compile(r"[.;:](?=\s)|,|\bthen\b|\bwe (?:get|have|find|obtain)\b|\bgives?\b|\n", re.IGNORECASE)
_WINDOW = 240
"""How far around a claim its sentence is looked at."""
_DEFINING_CHARS = 120
"""How far around "a + b = ..." a word is looked for that makes it the definition of an operation."""


@dataclass(frozen=True, slots=True)
class Setting:
    """From which character of a text on something holds for all that follows; None where it never does.

    Attributes:
        modular_from: "=" may be a congruence, and numbers may stand in another base.
        contradiction_from: what is written may be meant to be false.
        operation_from: by sign, from where on it may mean something else than usual.
    """

    modular_from: int | None
    contradiction_from: int | None
    operation_from: Mapping[str, int]


def setting_of(text: str) -> Setting:
    """Read a whole text once, for all of its claims."""
    modular, contradiction = _MODULAR_SETTING.search(text), _CONTRADICTION_SETTING.search(text)
    operations: dict[str, int] = {}
    for found in _OPERATION.finditer(text):
        around = text[max(0, found.start() - _DEFINING_CHARS) : found.end() + _DEFINING_CHARS]
        if found["other"] is None or ":=" in found[0] or _DEFINES.search(around):
            sign = _canonical(found["star"] or found["other"] or found["named"])
            operations.setdefault(sign, found.start())
    return Setting(
        None if modular is None else modular.start(),
        None if contradiction is None else contradiction.start(),
        operations,
    )


def doubt_about(text: str, start: int, end: int, setting: Setting) -> Doubt | None:
    """Why the claim `text[start:end]` may not be called wrong, or None; `setting` is that of `text`."""
    before, behind = text[max(0, start - _WINDOW) : start], text[end : end + _WINDOW]
    sentence_before = _sentence_before(before)
    stop = _SENTENCE_BREAK.search(behind)
    rest = behind[: stop.end()] if stop else behind
    if rest.rstrip().endswith("?") or text[end : end + 3].strip().startswith("?"):
        return "question"
    clause_breaks = list(_CLAUSE_BREAK.finditer(sentence_before))
    clause = sentence_before[clause_breaks[-1].end() :] if clause_breaks else sentence_before
    if _CONDITION.search(clause):
        return "condition"
    if _CONTRADICTION.search(sentence_before) or _CONTRADICTION.search(behind):
        return "contradiction"
    if _SUPPOSITION.search(before) or _is_behind(start, setting.contradiction_from):
        return "supposition"
    if _REPORTED.search(sentence_before):
        return "reported"
    signs = {_canonical(sign) for sign in _SIGN.findall(text, start, end)} if setting.operation_from else ()
    if any(_is_behind(start, setting.operation_from.get(sign)) for sign in signs):
        return "operation"
    if _is_behind(end, setting.modular_from) or _MODULAR.search(before) or _MODULAR.search(behind):
        return "modular"
    if _APPROXIMATE.search(sentence_before) or _APPROXIMATE.search(rest):
        return "approximate"
    return None


def _sentence_before(before: str) -> str:
    """The sentence that goes on behind `before`; one that ends in a colon goes on over a blank line."""
    breaks = list(_SENTENCE_BREAK.finditer(before))
    while breaks and breaks[-1][0].startswith("\n") and before[: breaks[-1].start()].rstrip(" \t*").endswith(":"):
        breaks.pop()
    return before[breaks[-1].end() :] if breaks else before


def _is_behind(place: int, first: int | None) -> bool:
    return first is not None and place > first


def _canonical(sign: str) -> str:
    """One spelling for the stars and one for the signs of usual multiplication."""
    if re.fullmatch(_STAR, sign):
        return "*"
    return {"×": r"\times", "·": r"\cdot", "⋅": r"\cdot", "÷": r"\div", "−": "-"}.get(sign, sign)
