"""What in the sentence around an equation forbids calling it wrong. Knows words, not what the equation says."""

from __future__ import annotations

import re
from typing import Literal

Doubt = Literal["condition", "question", "contradiction", "modular", "approximate"]

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
    r"\bmod(?:ulo|ular)?\b|\bxor\b|⊕|\\oplus|\\[bp]?mod\b|\\equiv|≡|\bbases?\b|binary|hexadecimal|\boctal|residue|congru|remainder|\bclock\b"
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


def doubt_about(text: str, start: int, end: int) -> Doubt | None:
    """Why the claim `text[start:end]` may not be called wrong, or None."""
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
