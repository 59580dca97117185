"""Weighted best-of-N with a process reward model: step scores made one number an attempt, summed for each answer. Pure.

The aggregations "last", "min", "prod" and "mean" over steps are computed where the steps are scored, and come as the
attempts' features "prm_last", ... (weighted best-of-N: Beeching et al. 2024, "Scaling test-time compute").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mathlete.cic.majority import tally, votes_of
from mathlete.cic.scored import finite_feature, plain_scores, select_best, sums_of_weights
from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.selection import Selection

AGGREGATIONS = ("prm_last", "prm_min", "prm_prod", "prm_mean")


@dataclass(frozen=True, slots=True)
class PrmVote:
    """See the module. An attempt without a score, or with a negative one, adds nothing.

    When no attempt has a score above 0, this is the plain vote.

    Attributes:
        name: one of `AGGREGATIONS`, the feature that is summed.
    """

    name: str = "prm_last"

    def __post_init__(self) -> None:
        """Raise `ValueError` for an unknown aggregation."""
        if self.name not in AGGREGATIONS:
            raise ValueError(f"name must be one of {', '.join(AGGREGATIONS)}, not {self.name!r}")

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """See the class. With no answer in the pool, a `Selection` with rule "fallback"."""
        votes = votes_of(attempts)
        scores = sums_of_weights(votes, self._score)
        if not any(scores.values()):
            reasons = ("No attempt has a step score, so this is the plain vote.",)
            return select_best(self.name, problem, attempts, plain_scores(tally(attempts)), reasons=reasons)
        reasons = (f"Each attempt votes with its {self.name.removeprefix('prm_')} step score.",)
        return select_best(self.name, problem, attempts, scores, reasons=reasons)

    def _score(self, attempt: Attempt) -> float:
        return max(0.0, finite_feature(attempt, self.name) or 0.0)
