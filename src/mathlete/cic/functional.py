"""The CIC functional F = Phi - lambda H + gamma C_multi of a set of attempts, with every term to see. Pure.

Terms (SPEC part B): Phi, cohesion of the traces (`ncd.py`); H, disorder of the answers (`disorder.py`); C_multi, their
coherence at three scales. F says nothing of a set's size: of two sets that are equally cohesive the one of two
attempts scores as high as the one of ten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from mathlete.cic.answer_values import answer_value
from mathlete.cic.disorder import posterior_entropy, published_entropy, shannon_entropy
from mathlete.cic.majority import Vote
from mathlete.cic.ncd import estimated_cohesion, trace_of
from mathlete.cic.value_clusters import PROXIMITY, is_close

EntropyKind = Literal["published", "shannon", "posterior"]


@dataclass(frozen=True, slots=True)
class CicParameters:
    """The constants of the functional; the defaults are the strategy's.

    Attributes:
        entropy_weight: lambda.
        coherence_weight: gamma.
        mode_weight: of the share of the mode in C_multi.
        pairs_weight: of the share of close pairs.
        range_weight: of the range term.
        proximity: two answers are close when they differ by less than this part of the larger.
        entropy: which H: "published" (a variance), "shannon" or "posterior" (see `disorder.py`).
        min_confidence: smallest confidence.
        max_confidence: largest.
    """

    entropy_weight: float = 0.5
    coherence_weight: float = 0.3
    mode_weight: float = 0.5
    pairs_weight: float = 0.3
    range_weight: float = 0.2
    proximity: Fraction = PROXIMITY
    entropy: EntropyKind = "published"
    min_confidence: float = 0.05
    max_confidence: float = 0.95

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("entropy_weight", "coherence_weight", "mode_weight", "pairs_weight", "range_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, not {getattr(self, name)}")
        if not 0 < self.proximity < 1:
            raise ValueError(f"proximity must be in (0, 1), not {self.proximity}")
        if not 0 <= self.min_confidence <= self.max_confidence <= 1:
            raise ValueError(
                f"min_confidence ({self.min_confidence}) and max_confidence ({self.max_confidence}) must be in order "
                "within [0, 1]"
            )


STRATEGY = CicParameters()


@dataclass(frozen=True, slots=True)
class CicTerms:
    """The terms of one set of attempts.

    Attributes:
        phi: cohesion; None when fewer than two traces have text. F then goes without it.
        entropy: H.
        coherence: C_multi.
        f: the functional.
    """

    phi: float | None
    entropy: float
    coherence: float
    f: float


def cic_terms(votes: Sequence[Vote], parameters: CicParameters = STRATEGY) -> CicTerms:
    """The terms of some votes. A single vote has no pair of traces: its Phi is None, so it does not win by itself."""
    answers = [vote.answer for vote in votes]
    phi = estimated_cohesion([trace_of(vote.attempt) for vote in votes])
    entropy = entropy_of(votes, parameters.entropy)
    coherence = coherence_of(answers, parameters)
    f = (phi or 0.0) - parameters.entropy_weight * entropy + parameters.coherence_weight * coherence
    return CicTerms(phi, entropy, coherence, f)


def confidence_of(f: float, parameters: CicParameters = STRATEGY) -> float:
    """clamp(0.5 + F / 2, 0.05, 0.95), as published; not calibrated."""
    return min(parameters.max_confidence, max(parameters.min_confidence, 0.5 + f / 2))


def entropy_of(votes: Sequence[Vote], kind: EntropyKind) -> float:
    """H of some votes, in [0, 1]."""
    if kind == "posterior":
        return posterior_entropy(votes)
    answers = [vote.answer for vote in votes]
    return published_entropy(answers) if kind == "published" else shannon_entropy(answers)


def coherence_of(answers: Sequence[str], parameters: CicParameters = STRATEGY) -> float:
    """C_multi = 0.5 C1 + 0.3 C2 + 0.2 C3, in [0, 1]; 0 for no answers.

    C1 is the share of the mode, C2 the share of pairs within 5 %, C3 = 1 / (1 + range / |mean|) of those that are
    numbers.
    """
    if not answers:
        return 0.0
    counts = Counter(answers)
    return (
        parameters.mode_weight * max(counts.values()) / len(answers)
        + parameters.pairs_weight * close_pairs(counts, parameters.proximity)
        + parameters.range_weight * range_term(answers)
    )


def close_pairs(counts: Counter[str], proximity: Fraction = PROXIMITY) -> float:
    """C2: share of all pairs of votes that are close. Texts are close to the same text. 0 when there is no pair."""
    num_votes = counts.total()
    if num_votes < 2:
        return 0.0
    close = sum(n * (n - 1) // 2 for n in counts.values())
    numbers = sorted((value, n) for answer, n in counts.items() if (value := answer_value(answer)) is not None)
    # Of ascending numbers of one sign those close to one of them are its neighbours; of two signs none are close.
    for index, (a, n) in enumerate(numbers):
        for b, m in reversed(numbers[:index]):
            if not is_close(a, b, proximity):
                break
            close += n * m
    return close / (num_votes * (num_votes - 1) // 2)


def range_term(answers: Sequence[str]) -> float:
    """C3 = 1 / (1 + range / |mean|) of the answers that are numbers: 1 when all are equal, 0 when there is none."""
    values = [value for value in map(answer_value, answers) if value is not None]
    if not values:
        return 0.0
    spread, mean = max(values) - min(values), abs(sum(values, Fraction(0)) / len(values))
    return 1.0 if spread == 0 else float(mean / (mean + spread))
