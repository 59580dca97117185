"""What luck does to a score, and how many runs or problems it takes to see more than luck.

Knows attempts of a pool and the normal theory of differences of means. Does not know files, rules other than the plain
vote, or what a difference is worth. Glossary: a *run* answers each problem once, by a plain vote of k new attempts;
*identical* runs differ in nothing but luck; an *arm* is one of two ways that are compared, each with its runs; the
*effect* is a true difference of scores. Sizes are for a two-sided test at `LEVEL` that finds the effect with `POWER`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mathlete.core.errors import InputError
from mathlete.lab.at_k import majority_at_k
from mathlete.lab.pools import AnswerPool

LEVEL = 0.05
POWER = 0.80
_NORMAL = NormalDist()
_LEAST_EFFECT = 1e-6  # below, numbers of runs grow beyond all that can be counted
_NUM_PAIRS = 200_000  # pairs of runs drawn over all problems: luck is then known to about 1 %
_FEWEST_PAIRS, _MOST_PAIRS = 50, 2_000  # a problem

Method = Literal["apart", "with replacement"]
Watched = Callable[[Sequence[AnswerPool]], Iterable[AnswerPool]]


@dataclass(frozen=True, slots=True)
class ProblemLuck:
    """One problem under a plain vote of k attempts.

    Attributes:
        problem_id: of the problem.
        chance: that a run gets it right, ties broken at random (`at_k.majority_at_k`, unbiased).
        both: that two independent runs both get it right.
        one: that just one of two does.
        method: "apart": the two runs drew different attempts of the pool, which needs 2k of them and is unbiased;
            "with replacement": there are fewer, so both draw from the pool as if it were all that the model ever
            writes, which understates luck.
    """

    problem_id: str
    chance: float
    both: float
    one: float
    method: Method

    @property
    def variance(self) -> float:
        """Of a run's score (0 or 1) on this problem over identical runs: half of E (X - Y)^2 of two of them."""
        return self.one / 2


@dataclass(frozen=True, slots=True)
class Luck:
    """Identical runs over a pool of problems.

    Attributes:
        attempts: k, of each run at each problem.
        problems: of each problem that has at least k attempts.
        num_short: problems with fewer, left out.
    """

    attempts: int
    problems: tuple[ProblemLuck, ...]
    num_short: int

    @property
    def accuracy(self) -> float:
        """Expected share of right answers of a run."""
        return _mean(item.chance for item in self.problems)

    @property
    def variance(self) -> float:
        """Mean variance of a problem's score over identical runs: what luck adds for each problem."""
        return _mean(item.variance for item in self.problems)

    @property
    def num_apart(self) -> int:
        """Problems whose luck is known without bias."""
        return sum(item.method == "apart" for item in self.problems)

    def spread(self, num_problems: int) -> float:
        """Standard deviation of the number right of `num_problems` over identical runs of the same problems."""
        return math.sqrt(num_problems * self.variance)

    def spread_of_contests(self, num_problems: int) -> float:
        """The same when the problems too are drawn anew from the pool's kind each time."""
        return math.sqrt(num_problems * self.accuracy * (1 - self.accuracy))


@dataclass(frozen=True, slots=True)
class TwoRunSpread:
    """The score of a contest that runs a program twice (`lab.two_runs`), over identical pairs of runs.

    A problem gives 1 when both runs are right, 0.5 for one, else 0: the mean of two runs' scores, so its spread is
    theirs over the root of two.

    Attributes:
        expected: of `num_problems`.
        spread: standard deviation over identical pairs of runs, of the same problems.
        both: expected number of problems that both get right.
        one: that just one gets right.
        none: that neither does.
    """

    expected: float
    spread: float
    both: float
    one: float
    none: float


@dataclass(frozen=True, slots=True)
class EffectSize:
    """What it takes to see a difference of `effect` problems.

    Attributes:
        effect: true difference in problems of a contest.
        runs: of each arm, over the same problems of a contest, until the difference of means shows it.
        problems: instead, different problems that each arm runs once.
        power_of_one: chance that one run of each arm shows it.
        by_luck: chance that two identical runs differ by `effect` or more, either way.
    """

    effect: float
    runs: int
    problems: int
    power_of_one: float
    by_luck: float


def luck_of_pool(pools: Sequence[AnswerPool], attempts: int, *, seed: int = 0, watched: Watched = iter) -> Luck:
    """How identical runs by a plain vote of `attempts` differ, from recorded attempts.

    Args:
        pools: one for each problem.
        attempts: k of each run.
        seed: of the draws of pairs of runs; a problem's draws depend on its place in the pool only.
        watched: hands the problems on one by one, so that a caller can show how far this is.

    Raises:
        InputError: no problem has so many attempts.
    """
    fitting = [pool for pool in pools if len(pool.answers) >= attempts]
    if attempts < 1 or not fitting:
        most = max((len(pool.answers) for pool in pools), default=0)
        raise InputError(
            f"no problem has {attempts} attempts for a run (the most is {most}); ask for 1 to {most} attempts"
            if most
            else "there are no attempts to draw runs from"
        )
    num_pairs = min(_MOST_PAIRS, max(_FEWEST_PAIRS, _NUM_PAIRS // len(fitting)))
    problems = tuple(
        problem_luck(pool, attempts, np.random.default_rng([seed, place]), num_pairs)
        for place, pool in enumerate(watched(fitting))
    )
    return Luck(attempts, problems, len(pools) - len(fitting))


def problem_luck(pool: AnswerPool, attempts: int, rng: np.random.Generator, num_pairs: int) -> ProblemLuck:
    """One problem of `luck_of_pool`, from `num_pairs` drawn pairs of runs."""
    size = len(pool.answers)
    apart = 2 * attempts <= size
    if apart:
        places = rng.random((num_pairs, size)).argsort(axis=1)[:, : 2 * attempts]
    else:
        places = rng.integers(size, size=(num_pairs, 2 * attempts))
    votes = _vote_scores(pool, places.reshape(2 * num_pairs, attempts))
    one, two = votes[0::2], votes[1::2]
    return ProblemLuck(
        problem_id=pool.problem_id,
        chance=majority_at_k(pool.answers, pool.correct, attempts),
        both=float(np.mean(one * two)),
        one=float(np.mean(one * (1 - two) + two * (1 - one))),
        method="apart" if apart else "with replacement",
    )


def _vote_scores(pool: AnswerPool, places: NDArray[np.int64]) -> NDArray[np.float64]:  # [draws, k] -> [draws]
    """`at_k.majority_score` of each draw of attempts."""
    names = [answer for answer in dict.fromkeys(pool.answers) if answer is not None]
    right = {answer for answer, is_right in zip(pool.answers, pool.correct, strict=True) if is_right}
    number = {answer: place for place, answer in enumerate(names)}
    codes = np.array([len(names) if answer is None else number[answer] for answer in pool.answers])
    width = len(names) + 1  # the last is silence
    cells = codes[places] + np.arange(len(places))[:, None] * width
    counts = np.bincount(cells.ravel(), minlength=len(places) * width).reshape(len(places), width)[:, :-1]
    if not names:
        return np.zeros(len(places))
    most = counts.max(axis=1, keepdims=True)
    leading = (counts == most) & (most > 0)
    are_right = np.array([answer in right for answer in names])
    scores: NDArray[np.float64] = (leading & are_right).sum(axis=1) / np.maximum(1, leading.sum(axis=1))
    return scores


def two_run_spread(luck: Luck, num_problems: int) -> TwoRunSpread:
    """What a contest of `num_problems` such problems gives when the program runs twice."""
    both, one = (num_problems * _mean(getattr(item, name) for item in luck.problems) for name in ("both", "one"))
    return TwoRunSpread(
        expected=num_problems * luck.accuracy,
        spread=luck.spread(num_problems) / math.sqrt(2),
        both=both,
        one=one,
        none=num_problems - both - one,
    )


def effect_size(luck: Luck, effect: float, num_problems: int) -> EffectSize:
    """What it takes to see `effect` problems of `num_problems`.

    Raises:
        InputError: an effect that is not above 0 (0.000001 at least) and at most `num_problems`.
    """
    if not 0 < effect <= num_problems:
        raise InputError(f"an effect must be above 0 and at most the {num_problems} problems, not {effect:g}")
    if effect < _LEAST_EFFECT:
        raise InputError(f"an effect must be {_LEAST_EFFECT:.6f} problems at least, not {effect:g}: no test sees less")
    spread = luck.spread(num_problems)
    each = runs_needed(spread, effect, rounded=False)
    return EffectSize(
        effect=effect,
        runs=max(1, math.ceil(each)),
        problems=max(1, math.ceil(each * num_problems)),
        power_of_one=power_of(effect, spread * math.sqrt(2)),
        by_luck=_chance_beyond(math.ceil(effect) - 0.5, spread * math.sqrt(2)),  # scores are whole numbers
    )


def runs_needed(
    spread: float, effect: float, *, power: float = POWER, level: float = LEVEL, rounded: bool = True
) -> float:
    """Runs of each arm until a difference of mean scores shows `effect`: 2 spread^2 (z + z')^2 / effect^2.

    Args:
        spread: standard deviation of one run's score, in the unit of `effect`.
        effect: true difference, above 0.
        power: chance to find it.
        level: chance to find something where nothing is, both sides.
        rounded: up to whole runs, 1 at least.
    """
    exact = 2 * (spread * _reach(power, level) / effect) ** 2
    return max(1, math.ceil(exact)) if rounded else exact


def power_of(effect: float, standard_error: float, *, level: float = LEVEL) -> float:
    """Chance that a two-sided test finds a true difference whose estimate has this standard error."""
    if standard_error == 0:
        return 1.0
    edge = _NORMAL.inv_cdf(1 - level / 2)
    shift = effect / standard_error
    return _NORMAL.cdf(shift - edge) + _NORMAL.cdf(-shift - edge)


def detectable_difference(
    differences: Sequence[float], groups: Sequence[str], *, power: float = POWER, level: float = LEVEL
) -> float | None:
    """The smallest true mean difference that data of this size and spread shows; None when nothing differs.

    Args:
        differences: of each problem the second score minus the first, on the same problems (and attempts).
        groups: of each problem; problems of a group count together.
        power: chance to find it.
        level: chance to find something where nothing is, both sides.
    """
    error = standard_error(differences, groups)
    return _reach(power, level) * error if error > 0 else None


def problems_needed(
    differences: Sequence[float], groups: Sequence[str], effect: float, *, power: float = POWER, level: float = LEVEL
) -> int:
    """Problems like these until a paired comparison shows a mean difference of `effect` a problem.

    Raises:
        ValueError: an effect that is not above 0.
    """
    if not effect > 0:
        raise ValueError(f"an effect must be above 0, not {effect}")
    error = standard_error(differences, groups)
    return max(1, math.ceil(len(differences) * (_reach(power, level) * error / effect) ** 2))


def standard_error(values: Sequence[float], groups: Sequence[str]) -> float:
    """Of the mean, groups being independent and problems of a group not (the cluster-robust one); 0 for one group."""
    if not values or len(values) != len(groups):
        raise ValueError("a standard error needs at least one value and a group for each")
    mean = math.fsum(values) / len(values)
    sums: dict[str, float] = {}
    for value, group in zip(values, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + value - mean
    num_groups = len(sums)
    if num_groups == 1:
        return 0.0
    squares = math.fsum(value * value for value in sums.values()) * num_groups / (num_groups - 1)
    return math.sqrt(squares) / len(values)


def _reach(power: float, level: float) -> float:
    return _NORMAL.inv_cdf(1 - level / 2) + _NORMAL.inv_cdf(power)


def _chance_beyond(size: float, spread: float) -> float:
    """Chance that a normal variable of this spread is `size` or more away from 0."""
    return 2 * _NORMAL.cdf(-size / spread) if spread > 0 else float(size <= 0)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)
