"""The solver pipeline of the specification (SPEC C4): generate n, score each, take the best one's answer, clamp it.

A selector: under `contest.policy.FixedPolicy`, which launches all attempts at once and waits for them, it is the
policy "pipeline". Pure; knows no clock. Clamping is a fault of the published pipeline, kept because it is what that
pipeline does: a number that nobody gave is handed in for one that cannot be right. It is done in the open, in the
selection's reasons, and in no other policy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mathlete.cic.majority import fallback_selection
from mathlete.cic.scored import finite_feature
from mathlete.core.attempt import Attempt
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.selection import AnswerCluster, Selection
from mathlete.triad.attempt_ending import answer_in
from mathlete.verify.ceilings import MAX_ANSWER_CHARS, MAX_BITS

AVAILABLE = "available"

_INTEGER = re.compile(rf"[+-]?[0-9]{{1,{MAX_ANSWER_CHARS}}}")
_LEAST_ENTROPY = 1e-9
_MAX_SHOWN_DIGITS = 24

Score = Callable[[Attempt], float | None]


def _feature(name: str) -> Score:
    return lambda attempt: finite_feature(attempt, name)


def _inverse(name: str) -> Score:
    """One over an entropy, as the AIMO-3 notebooks weigh votes."""

    def score(attempt: Attempt) -> float | None:
        value = finite_feature(attempt, name)
        return None if value is None else 1.0 / max(value, _LEAST_ENTROPY)

    return score


def _fewest_tokens(attempt: Attempt) -> float | None:
    return -float(attempt.num_tokens) if attempt.num_tokens > 0 else None


# More is better. None where an attempt does not tell what a score is made of; the features are those of
# `core.confidence.confidence_features`.
SCORES: Mapping[str, Score] = {
    "mean_logprob": _feature("mean_logprob"),
    "mean_confidence": _feature("mean_confidence"),
    "tail_confidence": _feature("tail_confidence"),
    "bottom_10_percent_group": _feature("bottom_10_percent_group"),
    "min_window_confidence": _feature("min_window_confidence"),
    "inverse_entropy": _inverse("mean_entropy"),
    "inverse_top5_entropy": _inverse("top5_entropy_bits"),
    "fewest_tokens": _fewest_tokens,
}
SCORERS = (AVAILABLE, *SCORES)


class Candidate(NamedTuple):
    """An attempt with an integer, admissible or not."""

    attempt: Attempt
    value: int


@dataclass(frozen=True, slots=True)
class PipelineSelector:
    """The answer of the attempt with the highest score, clamped; ties go to the one that ended first.

    Attempts without an integer are passed over, and those that do not tell what the score is made of come last.

    Attributes:
        scorer: one of `SCORERS`; "available" is the first of `SCORES` that every attempt with an integer tells.
        name: of the rule.
    """

    scorer: str = AVAILABLE
    name: str = "pipeline"

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if self.scorer not in SCORERS:
            raise ValueError(f"scorer must be one of {', '.join(SCORERS)}, not {self.scorer!r}")

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no integer in the pool, a `Selection` with rule "fallback"."""
        kind = problem.answer_kind
        tries = [attempt for attempt in attempts if not attempt.is_check]
        pool = [Candidate(a, value) for a in tries if (value := integer_of(a, kind)) is not None]
        if not pool:
            return fallback_selection(problem, f"None of {len(tries)} attempts had an integer.")
        scorer = self._scorer_for(pool)
        scores = [None if scorer is None else SCORES[scorer](item.attempt) for item in pool]
        best = max(range(len(pool)), key=lambda i: (scores[i] is not None, scores[i] or 0.0, -i))
        answer = str(clamped(pool[best].value, kind))
        clusters = _clusters(pool, kind)
        share = next(cluster.weight for cluster in clusters if cluster.answer == answer) / len(pool)
        reasons = [_score_sentence(scorer, scores[best], pool[best].attempt, len(pool))]
        if pool[best].value != int(answer):
            reasons.append(_clamp_sentence(pool[best].value, answer, kind))
        if passed_over := len(tries) - len(pool):
            reasons.append(f"Attempts without an integer, passed over: {passed_over}.")
        return Selection(
            answer=answer,
            rule=self.name,
            confidence=share,
            clusters=clusters,
            terms={
                "num_candidates": float(len(pool)),
                "clamped": float(pool[best].value != int(answer)),
                **({} if scores[best] is None else {"score": float(scores[best] or 0.0)}),
            },
            reasons=tuple(reasons),
        )

    def _scorer_for(self, pool: Sequence[Candidate]) -> str | None:
        """The score that is used; None where no attempt tells any."""
        if self.scorer != AVAILABLE:
            return self.scorer
        told = (name for name, score in SCORES.items() if all(score(item.attempt) is not None for item in pool))
        return next(told, None)


def integer_of(attempt: Attempt, kind: AnswerKind) -> int | None:
    """The integer that an attempt ended with, whether it is admissible or not; None when there is none.

    Answers out of range are refused when an attempt ends, and recorded as such; what the integer was stands in its
    turns only, so it is read there again.
    """
    if attempt.answer is not None:
        return int(attempt.answer) if _INTEGER.fullmatch(attempt.answer) else None
    if attempt.failure != "out_of_range":
        return None
    any_integer = AnswerKind(low=-(1 << MAX_BITS), high=1 << MAX_BITS)
    for complete in (True, False):  # whether the text came to its own end is not recorded beside this failure
        value = answer_in(attempt.turns, any_integer, complete=complete).value
        if value is not None and not kind.admits(value):
            return value
    return None


def clamped(value: int, kind: AnswerKind) -> int:
    """The admissible integer nearest to a value."""
    return min(max(value, kind.low), kind.high)


def _clusters(pool: Sequence[Candidate], kind: AnswerKind) -> tuple[AnswerCluster, ...]:
    """Attempts by what would be handed in for them; the most frequent first, then the one that came first."""
    groups: dict[str, list[str]] = {}
    for attempt, value in pool:
        groups.setdefault(str(clamped(value, kind)), []).append(attempt.id)
    ranked = sorted(groups.items(), key=lambda item: -len(item[1]))
    return tuple(AnswerCluster(answer, float(len(ids)), tuple(ids)) for answer, ids in ranked)


def _score_sentence(scorer: str | None, score: float | None, attempt: Attempt, num: int) -> str:
    if scorer is None or score is None:
        what = "any score" if scorer is None else scorer
        return f"No attempt tells {what}, so the first of {num} with an integer is taken: {attempt.id}."
    return f"{attempt.id} has the highest {scorer} of {num} attempts: {score:.4g}."


def _clamp_sentence(value: int, answer: str, kind: AnswerKind) -> str:
    side = "below the smallest" if value < kind.low else "above the largest"
    digits = value.bit_length() * 3 // 10  # str() of a number may be refused for its length
    told = str(value) if digits <= _MAX_SHOWN_DIGITS else f"a number of about {digits} digits"
    return f"It ended with {told}, {side} admissible integer, which was clamped to {answer}."
