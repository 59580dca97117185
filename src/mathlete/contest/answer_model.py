"""What a pool of answers tells of the truth, and what more attempts would tell. Exact sums; no clock, no problem text.

The model. An attempt at a problem is right, null (no answer) or wrong with chances (r, n, w), drawn once a problem from
a Dirichlet distribution: problems differ. Right attempts all give the one right answer; wrong ones give answers of
their own, which come back as in a Chinese restaurant: after W wrong attempts with k answers, the next repeats an
answer given c times with chance (c - d) / (a + W) and is new with (a + k d) / (a + W) (two-parameter Ewens-Pitman;
Pitman 1995). So the chance of a pool under the hypothesis "answer i is right", or "the right one was not seen yet", is
a product of rising factorials, and Bayes gives the chance that each answer is right.

Words: `counts` are the votes of each answer, the *selected* one first; `nulls` attempts without an answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

_CACHED = 1 << 18


@dataclass(frozen=True, slots=True)
class PoolPrior:
    """What is expected of a problem before its first attempt.

    Attributes:
        right: Dirichlet weight of right attempts.
        null: of attempts without an answer.
        wrong: of wrong ones.
        concentration: of wrong answers; the larger, the rarer two attempts agree on a wrong one.
        discount: of wrong answers, in [0, 1).
    """

    right: float
    null: float
    wrong: float
    concentration: float
    discount: float

    def __post_init__(self) -> None:
        """Raise `ValueError` naming the first field that is out of range."""
        for name in ("right", "null", "wrong", "concentration"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, not {getattr(self, name)}")
        if not 0 <= self.discount < 1:
            raise ValueError(f"discount must be in [0, 1), not {self.discount}")

    def with_solve_rate(self, solve_rate: float) -> PoolPrior:
        """The same certainty about another expected share of right attempts; null and wrong keep their proportion."""
        if not 0 < solve_rate < 1:
            raise ValueError(f"solve_rate must be in (0, 1), not {solve_rate}")
        total, rest = self.right + self.null + self.wrong, self.null + self.wrong
        part = total * (1 - solve_rate) / rest
        return PoolPrior(total * solve_rate, self.null * part, self.wrong * part, self.concentration, self.discount)


Counts = tuple[int, ...]


def answer_chances(counts: Counts, nulls: int, prior: PoolPrior) -> tuple[float, ...]:
    """The chance of each answer to be right, in the order of `counts`, and last that the right one was not seen."""
    weights = _weights(counts, nulls, prior)
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def support_of(confidence: float, counts: Counts, nulls: int, prior: PoolPrior) -> float:
    """The likelihood ratio that lifts the chance of the selected answer to `confidence`.

    What a selector knows besides the votes (checks, entropies) enters as one factor on the hypothesis that the
    selected answer is right (virtual evidence, Pearl 1988); what later attempts say is weighed against it.

    Args:
        confidence: the calibrated chance that the selected answer is right; clipped to [0.01, 0.99].
        counts: votes, that of the selected answer first; at least one.
        nulls: attempts without an answer.
        prior: see `PoolPrior`.
    """
    chance = min(max(answer_chances(counts, nulls, prior)[0], 1e-9), 1 - 1e-9)
    wanted = min(max(confidence, 0.01), 0.99)
    return wanted / (1 - wanted) * (1 - chance) / chance


def chance_right(counts: Counts, nulls: int, prior: PoolPrior, *, num_more: int = 0, support: float = 1.0) -> float:
    """The expected chance that the best answer is right once `num_more` more attempts have ended.

    The best is the likeliest under the model, so more attempts never lower it. Exact: sums over all pools that
    may come, which are few because answers with equal votes are alike.

    Args:
        counts: votes, that of the selected answer first.
        nulls: attempts without an answer.
        prior: see `PoolPrior`.
        num_more: attempts to come, >= 0; the cost grows quickly above about 8.
        support: see `support_of`.
    """
    return _expected(counts[:1] + tuple(sorted(counts[1:], reverse=True)), nulls, prior, num_more, support)


def log_evidence(num_right: int, nulls: int, wrong: Counts, prior: PoolPrior) -> float:
    """The log chance of a pool of which the truth is known, in one order of its attempts; what a fit maximises."""
    num_wrong = sum(wrong)
    return (
        _log_rising(prior.right, num_right)
        + _log_rising(prior.null, nulls)
        + _log_rising(prior.wrong, num_wrong)
        - _log_rising(prior.right + prior.null + prior.wrong, num_right + nulls + num_wrong)
        + math.fsum(math.log(prior.concentration + i * prior.discount) for i in range(len(wrong)))
        - _log_rising(prior.concentration, num_wrong)
        + math.fsum(_log_rising(1 - prior.discount, count - 1) for count in wrong)
    )


@lru_cache(_CACHED)
def _log_rising(base: float, num: int) -> float:
    return math.lgamma(base + num) - math.lgamma(base)


@lru_cache(_CACHED)
def _weights(counts: Counts, nulls: int, prior: PoolPrior) -> tuple[float, ...]:
    """The chance of the pool and each hypothesis: each answer right, then none of them."""
    hypotheses = (log_evidence(n, nulls, counts[:i] + counts[i + 1 :], prior) for i, n in enumerate(counts))
    return (*map(math.exp, hypotheses), math.exp(log_evidence(0, nulls, counts, prior)))


@lru_cache(_CACHED)
def _expected(counts: Counts, nulls: int, prior: PoolPrior, num_more: int, support: float) -> float:
    now = _supported(counts, nulls, prior, support)
    total = math.fsum(now)
    if num_more == 0:
        return max(now[:-1], default=0.0) / total
    expected = 0.0
    for later, later_nulls, alike in _next_pools(counts, nulls):
        chance = alike * math.fsum(_supported(later, later_nulls, prior, support)) / total
        if chance > 0:
            expected += chance * _expected(later, later_nulls, prior, num_more - 1, support)
    return expected


def _supported(counts: Counts, nulls: int, prior: PoolPrior, support: float) -> tuple[float, ...]:
    weights = _weights(counts, nulls, prior)
    return (weights[0] * support, *weights[1:]) if counts else weights


def _next_pools(counts: Counts, nulls: int) -> list[tuple[Counts, int, int]]:
    """The pools after one more attempt, and of how many answers each one's vote may have been."""
    pools = [(counts, nulls + 1, 1), ((*counts, 1), nulls, 1)]
    if counts:
        pools.append(((counts[0] + 1, *counts[1:]), nulls, 1))
    for votes in sorted(set(counts[1:])):
        place = counts.index(votes, 1)  # sorted, so the first of its kind can grow and the order stays
        grown = (*counts[:place], votes + 1, *counts[place + 1 :])
        pools.append((grown, nulls, counts[1:].count(votes)))
    return pools
