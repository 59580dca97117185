"""Whether a vote is settled: arithmetic over counts of votes. Pure; knows nothing of attempts, time or models.

`contest/stop_rules.py` makes rules of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def margin(votes: Sequence[int]) -> tuple[int, int]:
    """Votes of the leader and of the runner-up; 0 for one that is not there."""
    ranked = sorted(votes, reverse=True)
    return (ranked[0] if ranked else 0, ranked[1] if len(ranked) > 1 else 0)


def leader_uncatchable(votes: Sequence[int], num_outstanding: int) -> bool:
    """Whether no other answer can reach the leader even with every outstanding attempt.

    Args:
        votes: votes per answer, in any order.
        num_outstanding: attempts that may still vote, launched or not.
    """
    leader, second = margin(votes)
    return second + num_outstanding < leader


def leader_posterior(leader: int, second: int) -> float:
    """P(the leader is truly more frequent than the runner-up), uniform prior on their shares.

    This is P(p > 1/2) for p ~ Beta(leader + 1, second + 1), exact for integers through the
    binomial tail (adaptive consistency, Aggarwal et al. 2023, arXiv:2305.11860).
    """
    n = leader + second + 1
    return sum(math.comb(n, k) for k in range(leader + 1)) / (1 << n)
