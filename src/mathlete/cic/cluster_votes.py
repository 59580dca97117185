"""Selectors over value clusters: CIC by its functional, by the clusters' score, refined, by order, and by size. Pure.

All but `CicRefined` choose an answer that somebody gave. Within the chosen cluster the mode is taken, ties as in
`cic.majority.tally`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from mathlete.cic.answer_values import answer_value
from mathlete.cic.crystallisation import CRITICAL_TEMPERATURE, critical_distance
from mathlete.cic.disorder import published_entropy
from mathlete.cic.functional import CicParameters, CicTerms, cic_terms, confidence_of
from mathlete.cic.majority import Vote, fallback_selection, no_answer_reason, votes_of
from mathlete.cic.scored import select_best
from mathlete.cic.value_clusters import PROXIMITY, ValueCluster, refine_basin, value_clusters
from mathlete.core.attempt import Attempt
from mathlete.core.problem import AnswerKind, Problem
from mathlete.core.selection import Selection


@dataclass(frozen=True, slots=True)
class Cic:
    """The mode of the value cluster with the largest F = Phi - lambda H + gamma C_multi (SPEC part B).

    Its confidence is that of the whole pool's F. F does not grow with a cluster's size: two attempts with the same
    text beat ten that agree in different words. A single attempt has no Phi.

    Attributes:
        parameters: of the functional.
    """

    name = "cic"

    parameters: CicParameters = field(default_factory=CicParameters)

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        votes = votes_of(attempts)
        if not votes:
            return fallback_selection(problem, no_answer_reason(attempts))
        clusters = value_clusters([vote.answer for vote in votes], self.parameters.proximity)
        terms = [cic_terms(_members(votes, cluster), self.parameters) for cluster in clusters]
        pool = cic_terms(votes, self.parameters)
        scores = _scores(votes, clusters, [of_cluster.f for of_cluster in terms])
        return select_best(
            self.name,
            problem,
            attempts,
            scores,
            confidence=confidence_of(pool.f, self.parameters),
            terms={**_named(pool), "num_value_clusters": float(len(clusters))},
            reasons=(
                f"Scores are F = Phi - {self.parameters.entropy_weight:g} H + {self.parameters.coherence_weight:g} "
                f"C_multi of {len(clusters)} value clusters; the pool's: {_spoken(pool)}.",
                "The confidence is clamp(0.5 + F / 2) of the pool, uncalibrated.",
            ),
        )


@dataclass(frozen=True, slots=True)
class CicClusterMode:
    """The mode of the value cluster with the largest size * sqrt(tightness).

    Attributes:
        proximity: see `value_clusters`.
    """

    name = "cic_cluster_mode"

    proximity: Fraction = PROXIMITY

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        votes = votes_of(attempts)
        clusters = value_clusters([vote.answer for vote in votes], self.proximity)
        scores = _scores(votes, clusters, [cluster.score for cluster in clusters])
        best = clusters[0].size / len(votes) if votes else 0.0
        reasons = (
            f"Scores are size * sqrt(tightness) of {len(clusters)} value clusters; the mode of the best stands.",
        )
        return select_best(self.name, problem, attempts, scores, reasons=reasons, confidence=best)


@dataclass(frozen=True, slots=True)
class CicRefined:
    """As `CicClusterMode`, but the answer is (median + trimmed mean) / 2 of the cluster: the published refinement.

    On integers the fraction is cut off, as published; so it can choose a number that nobody gave, and often does.
    Kept to be measured, and for real-valued quantities.

    Attributes:
        proximity: see `value_clusters`.
    """

    name = "cic_refined"

    proximity: Fraction = PROXIMITY

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        chosen = CicClusterMode(self.proximity).select(problem, attempts)
        answers = [vote.answer for vote in votes_of(attempts)]
        of_mode = [c for c in value_clusters(answers, self.proximity) if chosen.answer in _answers_in(answers, c)]
        if not of_mode:
            return chosen  # the fallback
        values = of_mode[0].values
        refined = _written(refine_basin(values), problem.answer_kind) if len(values) > 1 else chosen.answer
        reasons = (*chosen.reasons, f"The basin of {chosen.answer} is refined to {refined}.")
        return replace(chosen, answer=refined, rule=self.name, reasons=reasons)


@dataclass(frozen=True, slots=True)
class NuVote:
    """The mode of the value cluster with the largest psi (1 - T) (1 - nu).

    T is the published H of the cluster, psi its share of the votes, nu the distance of (T, psi) from the critical
    point: the strategy's bound on confidence ("high order, low temperature, low nu"), taken cluster by cluster. It
    was published for a whole pool, where it chooses nothing; this is our reading of "a vote by nu".

    Attributes:
        proximity: see `value_clusters`.
        critical_temperature: T_c.
    """

    name = "nu_vote"

    proximity: Fraction = PROXIMITY
    critical_temperature: float = CRITICAL_TEMPERATURE

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        votes = votes_of(attempts)
        answers = [vote.answer for vote in votes]
        clusters = value_clusters(answers, self.proximity)
        order = max(Counter(answers).values()) / len(votes) if votes else 0.0
        nu = critical_distance(published_entropy(answers), order, self.critical_temperature)
        scores = _scores(votes, clusters, [self._boundedness(votes, cluster) for cluster in clusters])
        reasons = (f"Scores are psi (1 - T) (1 - nu) of {len(clusters)} value clusters; nu of the pool is {nu:.3f}.",)
        return select_best(self.name, problem, attempts, scores, reasons=reasons, terms={"nu": nu})

    def _boundedness(self, votes: Sequence[Vote], cluster: ValueCluster) -> float:
        temperature = published_entropy([vote.answer for vote in _members(votes, cluster)])
        order = cluster.size / len(votes)
        return order * (1 - temperature) * (1 - critical_distance(temperature, order, self.critical_temperature))


@dataclass(frozen=True, slots=True)
class ProximityVote:
    """The middle member of the largest value cluster.

    Published with clusters by NCD < 0.3 of the written answers; among those nearly all short numbers are one
    cluster (see `ncd.py`), so clusters by value are taken. The middle member is the (n // 2)-th from below: of an even
    number the upper one, as published. Of right and wrong integers within 5 % it is often a wrong one.

    Attributes:
        proximity: see `value_clusters`.
    """

    name = "proximity_vote"

    proximity: Fraction = PROXIMITY

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        votes = votes_of(attempts)
        answers = [vote.answer for vote in votes]
        clusters = value_clusters(answers, self.proximity)
        middles = {_middle(answers, cluster) for cluster in clusters}
        scores = _scores(votes, clusters, [float(cluster.size) for cluster in clusters])
        reasons = ("Scores are sizes of value clusters; the middle member of the largest stands.",)
        confidence = max((cluster.size for cluster in clusters), default=0) / max(1, len(votes))
        return select_best(
            self.name,
            problem,
            attempts,
            scores,
            reasons=reasons,
            confidence=confidence,
            tie_break=lambda t: (float(t.answer in middles),),
        )


def _members(votes: Sequence[Vote], cluster: ValueCluster) -> list[Vote]:
    return [votes[index] for index in cluster.indices]


def _answers_in(answers: Sequence[str], cluster: ValueCluster) -> set[str]:
    return {answers[index] for index in cluster.indices}


def _middle(answers: Sequence[str], cluster: ValueCluster) -> str:
    if not cluster.values:
        return answers[cluster.indices[0]]
    middle = cluster.values[cluster.size // 2]
    return next(answers[index] for index in cluster.indices if answer_value(answers[index]) == middle)


def _scores(votes: Sequence[Vote], clusters: Sequence[ValueCluster], scores: Sequence[float]) -> dict[str, float]:
    """Each answer's score is its cluster's; an answer is in one cluster only."""
    scored = zip(clusters, scores, strict=True)
    return {votes[index].answer: score for cluster, score in scored for index in cluster.indices}


def _written(value: Fraction, kind: AnswerKind) -> str:
    if kind.type == "integer":
        return str(int(value))  # towards zero, as published
    if value.denominator == 1:
        return str(value.numerator)
    return f"{value.numerator}/{value.denominator}"


def _named(terms: CicTerms) -> dict[str, float]:
    named = {"entropy": terms.entropy, "coherence": terms.coherence, "f": terms.f}
    return named if terms.phi is None else {"phi": terms.phi, **named}


def _spoken(terms: CicTerms) -> str:
    phi = "no traces for Phi" if terms.phi is None else f"Phi {terms.phi:.3f}"
    return f"{phi}, H {terms.entropy:.3f}, C_multi {terms.coherence:.3f}, F {terms.f:.3f}"
