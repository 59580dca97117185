"""How far attempts at the same problem go together, and how many independent attempts they are worth.

Estimated across problems, the only place where it can be seen: within one problem right and wrong attempts tell a share
and nothing about dependence. Knows counts of right attempts and which answers agree. Does not know problems or rules.

Two figures, both intra-class correlations. *Difficulty*: whether attempts are right together, from a beta-binomial fit:
each problem has its own chance p of a right attempt, p ~ Beta(alpha, beta), and rho = 1 / (alpha + beta + 1) is the
correlation of two attempts at one problem. *Agreement*: whether attempts give the same answer, right or not, beyond
what attempts at different problems do (kappa). n attempts with correlation rho tell as much about a mean over problems
as n / (1 + (n - 1) rho) attempts at as many different problems (Kish 1965).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mathlete.lab.bootstrap import Estimate, percentile_estimate, resampled_means
from mathlete.lab.pools import AnswerPool

MAX_RHO = 1 - 1e-6
_DROP_95 = 3.841458820694124 / 2  # half the 0.95 quantile of chi-square with one degree of freedom
_GRID = (0.0, *(float(x) for x in np.geomspace(1e-4, 0.5, 20)), *(1 - float(x) for x in np.geomspace(0.49, 1e-6, 20)))
_NUM_NEWTON, _NUM_GOLDEN, _NUM_HALVINGS = 60, 30, 30
_EXACT = 1e-13
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class BetaBinomial:
    """A beta-binomial fitted by maximum likelihood to k right of n attempts at each problem.

    Attributes:
        num_problems: problems with attempts.
        num_telling: of them, those with two attempts or more: only they tell of rho.
        mean: fitted chance of a right attempt, alpha / (alpha + beta).
        rho: intra-class correlation in [0, 1]; None when it cannot be told.
        rho_low: lower end of its 95 % interval by profile likelihood; None with rho.
        rho_high: upper end.
        log_likelihood: at the fit, without binomial coefficients.
        note: why rho cannot be told or lies on an edge; empty for a fit inside.
    """

    num_problems: int
    num_telling: int
    mean: float
    rho: float | None
    rho_low: float | None
    rho_high: float | None
    log_likelihood: float
    note: str = ""

    @property
    def alpha(self) -> float | None:
        """First parameter of the Beta; infinite for rho = 0, None when rho is."""
        return None if self.rho is None else self.mean * self._weight(self.rho)

    @property
    def beta(self) -> float | None:
        """Second parameter of the Beta; infinite for rho = 0, None when rho is."""
        return None if self.rho is None else (1 - self.mean) * self._weight(self.rho)

    @staticmethod
    def _weight(rho: float) -> float:
        return math.inf if rho == 0 else (1 - rho) / rho

    def effective_attempts(self, attempts: int) -> float | None:
        """Independent attempts that `attempts` at one problem are worth; None when rho is."""
        return None if self.rho is None else effective_attempts(attempts, self.rho)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether attempts at one problem give the same answer.

    Attributes:
        num_problems: problems with two answers or more.
        within: chance that two attempts with answers at one problem agree, mean over problems.
        between: chance that two attempts at different problems do: small where answers are large numbers.
        kappa: (within - between) / (1 - between), the correlation of nominal answers, with its interval by group;
            None when there are not two such problems, or all answers are the same.
        among_wrong: chance that two wrong attempts at one problem agree, over problems with two of them; None without.
            Errors that agree outvote the truth.
    """

    num_problems: int
    within: float
    between: float
    kappa: Estimate | None
    among_wrong: float | None

    def effective_attempts(self, attempts: int) -> float | None:
        """Independent voices that the votes of `attempts` are worth; None when kappa is."""
        return None if self.kappa is None else effective_attempts(attempts, max(0.0, self.kappa.value))


def effective_attempts(attempts: int, rho: float) -> float:
    """`attempts` / (1 + (attempts - 1) rho): all of them for rho = 0, one for rho = 1.

    Raises:
        ValueError: fewer than one attempt, or rho outside [0, 1].
    """
    if attempts < 1 or not 0 <= rho <= 1:
        raise ValueError(f"{attempts} attempts with correlation {rho} have no effective number")
    return attempts / (1 + (attempts - 1) * rho)


def fit_beta_binomial(counts: Iterable[tuple[int, int]]) -> BetaBinomial:
    """Fit k right of n attempts, n as it is for each problem; problems without attempts say nothing.

    Maximum likelihood over the mean and rho = 1 / (alpha + beta + 1), which knows the binomial as rho = 0 (Smith 1983,
    AS 189). For a given rho the likelihood is concave in the mean; over rho the profile is searched on a grid, then by
    golden section.

    Raises:
        ValueError: no problem with attempts, or k outside [0, n].
    """
    pairs = [(k, n) for k, n in counts if n or k]
    if not pairs or any(not 0 <= k <= n for k, n in pairs):
        raise ValueError("a beta-binomial needs problems with 0 <= k <= n right attempts of n, and at least one")
    right, total = sum(k for k, _ in pairs), sum(n for _, n in pairs)
    num_telling = sum(n > 1 for _, n in pairs)
    profile = _Profile(pairs)
    untold = _why_untold(right, total, num_telling)
    if untold:
        return BetaBinomial(
            len(pairs), num_telling, right / total, None, None, None, profile.likelihood(right / total, 0.0), untold
        )
    rho = _highest(profile.value)
    top = profile.value(rho)
    return BetaBinomial(
        num_problems=len(pairs),
        num_telling=num_telling,
        mean=profile.best_mean(rho),
        rho=rho,
        rho_low=_edge(profile.value, rho, 0.0, top - _DROP_95),
        rho_high=_edge(profile.value, rho, MAX_RHO, top - _DROP_95),
        log_likelihood=top,
        note=_note(rho, num_telling),
    )


def _why_untold(right: int, total: int, num_telling: int) -> str:
    if num_telling == 0:
        return "no problem has two attempts, so nothing tells whether they go together"
    if right in (0, total):
        return f"every attempt is {'right' if right else 'wrong'}, so nothing tells problems apart"
    if num_telling == 1:
        return "only one problem has two attempts; dependence shows across problems only"
    return ""


def _note(rho: float, num_telling: int) -> str:
    if rho == 0:
        return "on the edge: problems differ no more than luck makes them, as if all were equally hard"
    if rho >= MAX_RHO:
        return "on the edge: every problem is all right or all wrong"
    return f"from {num_telling} problems only; read the interval" if num_telling < 20 else ""


class _Profile:
    """The log-likelihood as a sum over j: S_j log(mu + j t) + F_j log(1 - mu + j t) - N_j log(1 + j t).

    t = 1 / (alpha + beta) = rho / (1 - rho); S_j, F_j, N_j count the problems with more than j right attempts, wrong
    ones, and attempts. All divided through by alpha + beta, which keeps t = 0 an ordinary point.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        self._more_right = _more_than([k for k, _ in pairs])
        self._more_wrong = _more_than([n - k for k, n in pairs])
        self._more = _more_than([n for _, n in pairs])

    def likelihood(self, mean: float, rho: float) -> float:
        """At one point; rho < 1."""
        t = rho / (1 - rho)
        return (
            _weighted_logs(self._more_right, mean, t)
            + _weighted_logs(self._more_wrong, 1 - mean, t)
            - _weighted_logs(self._more, 1.0, t)
        )

    def value(self, rho: float) -> float:
        """At the best mean for this rho."""
        return self.likelihood(self.best_mean(rho), rho)

    def best_mean(self, rho: float) -> float:
        """Where the slope in the mean, which falls all the way, is 0: Newton's steps, bisection where they leave."""
        t = rho / (1 - rho)
        low, high, mean = 0.0, 1.0, 0.5
        for _ in range(_NUM_NEWTON):
            slope = _weighted_inverses(self._more_right, mean, t) - _weighted_inverses(self._more_wrong, 1 - mean, t)
            fall = _weighted_inverses(self._more_right, mean, t, 2) + _weighted_inverses(
                self._more_wrong, 1 - mean, t, 2
            )
            low, high = (mean, high) if slope > 0 else (low, mean)
            step = mean + slope / fall
            following = step if low < step < high else (low + high) / 2
            if abs(following - mean) < _EXACT:
                return following
            mean = following
        return mean


def _more_than(counts: Sequence[int]) -> NDArray[np.float64]:
    """Of j = 0, 1, ...: how many of `counts` are larger than j."""
    each = np.bincount(np.asarray(counts, np.int64))
    return (len(counts) - each.cumsum())[:-1].astype(np.float64)


def _weighted_logs(weights: NDArray[np.float64], start: float, step: float) -> float:
    return float(weights @ np.log(start + step * np.arange(len(weights)))) if len(weights) else 0.0


def _weighted_inverses(weights: NDArray[np.float64], start: float, step: float, power: int = 1) -> float:
    return float(np.sum(weights / (start + step * np.arange(len(weights))) ** power))


def _highest(value: Callable[[float], float]) -> float:
    """Where in [0, MAX_RHO] a smooth function is highest; an edge when no point inside is higher."""
    heights = [value(rho) for rho in _GRID]
    best = int(np.argmax(heights))
    low, high = _GRID[max(0, best - 1)], _GRID[min(len(_GRID) - 1, best + 1)]
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = value(left), value(right)
    for _ in range(_NUM_GOLDEN):
        if at_left < at_right:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = value(right)
        else:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = value(left)
    return max((0.0, MAX_RHO, (low + high) / 2), key=value)


def _edge(value: Callable[[float], float], inside: float, outside: float, height: float) -> float:
    """Where between a point above `height` and an end of the range a function falls to it; the end if it never does."""
    if value(outside) >= height:
        return outside
    for _ in range(_NUM_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if value(middle) >= height else (inside, middle)
    return inside


def answer_agreement(pools: Iterable[AnswerPool], *, seed: int = 0) -> Agreement:
    """How often attempts at one problem give the same answer; attempts without an answer have no say.

    Args:
        pools: one for each problem.
        seed: of the bootstrap over groups.
    """
    groups, within, wrong = [], [], []
    everywhere: Counter[str] = Counter()
    same_problem = 0.0  # ordered pairs at one problem that agree, of all its pairs
    num_pairs_within = 0
    for pool in pools:
        votes = Counter(answer for answer in pool.answers if answer is not None)
        missed = Counter(a for a, ok in zip(pool.answers, pool.correct, strict=True) if a is not None and not ok)
        everywhere += votes
        same_problem += sum(count * count for count in votes.values())
        num_pairs_within += votes.total() ** 2
        if votes.total() > 1:
            groups.append(pool.group)
            within.append(_pairs_agreeing(votes))
        if missed.total() > 1:
            wrong.append(_pairs_agreeing(missed))
    apart = everywhere.total() ** 2 - num_pairs_within
    between = (sum(count * count for count in everywhere.values()) - same_problem) / apart if apart else 0.0
    kappa = None
    if len(groups) > 1 and between < 1:
        drawn = resampled_means({"within": within}, groups, seed=seed)["within"]
        mean = math.fsum(within) / len(within)
        kappa = percentile_estimate((mean - between) / (1 - between), (drawn - between) / (1 - between))
    return Agreement(
        num_problems=len(groups),
        within=math.fsum(within) / len(within) if within else 0.0,
        between=between,
        kappa=kappa,
        among_wrong=math.fsum(wrong) / len(wrong) if wrong else None,
    )


def _pairs_agreeing(votes: Counter[str]) -> float:
    """Share of pairs of different attempts that gave the same answer."""
    total = votes.total()
    return sum(count * (count - 1) for count in votes.values()) / (total * (total - 1))
