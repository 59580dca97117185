"""Which answer was chosen, by which rule, and why; and evidence for or against an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FALLBACK = "fallback"  # the rule of a selection that stands although no attempt had an answer

Verdict = Literal["PROVED", "SUPPORTED", "REFUTED", "UNKNOWN"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one checker says of one claim. Agreement is never PROVED; a failed check is UNKNOWN.

    Attributes:
        checker: name of the checker.
        claim: what was checked, in words.
        verdict: its result.
        failure: why there is no verdict ("timeout", "crash", "unparsable").
        elapsed_s: seconds it took.
        detail: program, counterexample or message.
        answer: the candidate answer that the claim is about, when it is about one.
    """

    checker: str
    claim: str
    verdict: Verdict
    failure: str | None = None
    elapsed_s: float = 0.0
    detail: str = ""
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class AnswerCluster:
    """One answer of the pool and the attempts that gave it."""

    answer: str
    weight: float
    attempt_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """The answer to one problem.

    Attributes:
        answer: canonical integer text; always present.
        rule: the selector's name, or "fallback" when no attempt had an answer.
        confidence: in [0, 1]; 0 for a fallback.
        clusters: the pool, heaviest first.
        terms: named quantities the rule used.
        reasons: sentences for a person.
        accepted: whether independent attempts agree on it and a check supports it; False when it is only the best that
            there is; None for a rule that does not ask.
    """

    answer: str
    rule: str
    confidence: float
    clusters: tuple[AnswerCluster, ...] = ()
    terms: Mapping[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    accepted: bool | None = None
