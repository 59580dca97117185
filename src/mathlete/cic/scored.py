"""What vote rules have in common: a score for each answer, the best one chosen, ties, and words for a person. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from mathlete.cic.majority import Tally, Vote, fallback_selection, no_answer_reason, tally
from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.selection import AnswerCluster, Selection

_MAX_REASONED = 4
_MAX_FEATURE = 1e12

TieBreak = Callable[[Tally], tuple[float, ...]]


def sums_of_weights(votes: Sequence[Vote], weight: Callable[[Attempt], float]) -> dict[str, float]:
    """For each answer the sum of its attempts' weights."""
    weights: dict[str, list[float]] = {}
    for answer, attempt in votes:
        weights.setdefault(answer, []).append(weight(attempt))
    return {answer: math.fsum(of_answer) for answer, of_answer in weights.items()}


def finite_feature(attempt: Attempt, name: str) -> float | None:
    """A feature of an attempt; None when it is not told, or is no number that can be added up (NaN, beyond 1e12)."""
    value = attempt.features.get(name)
    return value if value is not None and abs(value) <= _MAX_FEATURE else None


def plain_scores(tallies: Sequence[Tally]) -> dict[str, float]:
    """One vote, one point."""
    return {t.answer: float(t.votes) for t in tallies}


def select_best(
    rule: str,
    problem: Problem,
    attempts: Sequence[Attempt],
    scores: Mapping[str, float],
    *,
    reasons: Sequence[str] = (),
    terms: Mapping[str, float] | None = None,
    confidence: float | None = None,
    tie_break: TieBreak | None = None,
) -> Selection:
    """The answer of the highest score.

    Ties go by `tie_break` (higher first), then as in `cic.majority.tally`: more votes, lower entropy, first come.

    Args:
        rule: its name.
        problem: what was asked.
        attempts: the pool.
        scores: of each answer somebody gave, finite; one that is missing has 0.
        reasons: what a person should know besides the scores.
        terms: quantities the rule used.
        confidence: in [0, 1]; the share of the winner's score in all if None. Not calibrated.
        tie_break: of answers with equal scores.

    Returns:
        A `Selection` with the rule "fallback" when nobody has a vote.
    """
    tallies = tally(attempts)
    if not tallies:
        return fallback_selection(problem, no_answer_reason(attempts))
    scores = {t.answer: scores.get(t.answer, 0.0) for t in tallies}
    ranked = sorted(tallies, key=lambda t: (scores[t.answer], *(tie_break(t) if tie_break else ())), reverse=True)
    best = ranked[0]
    if confidence is None:
        total = math.fsum(scores.values())
        confidence = scores[best.answer] / total if total > 0 else best.votes / sum(t.votes for t in tallies)
    return Selection(
        answer=best.answer,
        rule=rule,
        confidence=min(1.0, max(0.0, confidence)),
        clusters=tuple(AnswerCluster(t.answer, scores[t.answer], t.attempt_ids) for t in ranked),
        terms={"score": scores[best.answer], "votes": float(best.votes), **(terms or {})},
        reasons=(_scores_sentence(ranked, scores), *reasons),
    )


def _scores_sentence(ranked: Sequence[Tally], scores: Mapping[str, float]) -> str:
    shown = [f"{t.answer} scores {scores[t.answer]:.4g} with {_votes(t.votes)}" for t in ranked[:_MAX_REASONED]]
    more = len(ranked) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "") + "."


def _votes(votes: int) -> str:
    return "1 vote" if votes == 1 else f"{votes} votes"
