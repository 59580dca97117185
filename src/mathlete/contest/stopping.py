"""When a vote is settled. Pure rules over counts of answers; knows nothing of time or of models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoppingRule:
    """When to stop asking for more attempts.

    Attributes:
        min_answers: answers (not attempts) that must be there before the posterior may stop.
        min_posterior: stop when the leader stays the leader with at least this probability.
    """

    min_answers: int = 4
    min_posterior: float = 0.95

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        if self.min_answers < 1:
            raise ValueError(f"min_answers must be >= 1, not {self.min_answers}")
        if not 0.5 <= self.min_posterior < 1:
            raise ValueError(f"min_posterior must be in [0.5, 1), not {self.min_posterior}")


def leader_uncatchable(votes: Sequence[int], num_outstanding: int) -> bool:
    """Whether no other answer can reach the leader even with every outstanding attempt.

    Args:
        votes: votes per answer, in any order.
        num_outstanding: attempts that may still vote, launched or not.
    """
    ranked = sorted(votes, reverse=True)
    if not ranked:
        return False
    second = ranked[1] if len(ranked) > 1 else 0
    return second + num_outstanding < ranked[0]


def leader_posterior(leader: int, second: int) -> float:
    """P(the leader is truly more frequent than the runner-up), uniform prior on their shares.

    This is P(p > 1/2) for p ~ Beta(leader + 1, second + 1), exact for integers through the
    binomial tail (adaptive consistency, Aggarwal et al. 2023, arXiv:2305.11860).
    """
    n = leader + second + 1
    return sum(math.comb(n, k) for k in range(leader + 1)) / (1 << n)


def why_settled(votes: Sequence[int], num_outstanding: int, rule: StoppingRule) -> str | None:
    """Why the vote is settled, as a sentence for a person, or None while it is open."""
    ranked = sorted(votes, reverse=True)
    if not ranked:
        return None
    if leader_uncatchable(ranked, num_outstanding):
        return f"the leader cannot be caught by {num_outstanding} outstanding attempts"
    if sum(ranked) < rule.min_answers:
        return None
    posterior = leader_posterior(ranked[0], ranked[1] if len(ranked) > 1 else 0)
    if posterior > rule.min_posterior:
        return f"the leader stays the leader with posterior {posterior:.3f}"
    return None
