"""Where the numbers of `mathlete.contest.{allocation,difficulty}` come from, and how well they predict.

usage: fit_clock.py prior RECORDED.jsonl...        the model of answers: fitted weights for each file
       fit_clock.py demand                         the demand curve under `allocation.PRIOR`
       fit_clock.py difficulty RECORDED.jsonl... [--out difficulty.json]
       fit_clock.py check RECORDED.jsonl...        how well the shipped model ranks the problems of other files
       fit_clock.py lengths RECORDED.jsonl...      how far attempts at one problem differ in length

RECORDED are recorded attempts in the interchange format (docs/clock.md says which were used). `difficulty` fits a ridge
logistic regression of each problem's share of right attempts on its statement, with one intercept a file; prints the
rank correlation with the share in problems that were left out (ten folds by group), then the same after the first 2
and 4 attempts, against the share among the *other* attempts of the problem; and writes the model.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mathlete.contest.allocation import PRIOR, worth_another
from mathlete.contest.answer_model import PoolPrior, answer_chances, log_evidence
from mathlete.contest.difficulty import DifficultyModel, statement_features, statement_solve_rate
from mathlete.core.attempt import Attempt
from mathlete.core.policy import PoolState
from mathlete.core.problem import Problem
from mathlete.lab.recorded import read_recorded

Array = NDArray[np.float64]

MAX_WEIGHT = 8  # attempts that a problem counts for at most, so that no file drowns the others
MAX_POOL = 16  # attempts of a problem that the model of answers sees
RIDGE = 20.0
FOLDS = 10
PRICES = (0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002, 0.001)


@dataclass(frozen=True)
class Pool:
    """One problem's attempts, shuffled once."""

    file: int
    group: str
    statement: str
    attempts: list[tuple[Attempt, bool]]

    @property
    def rate(self) -> float:
        """The share that was right."""
        return statistics.fmean(right for _, right in self.attempts)

    @property
    def mean_length(self) -> float:
        """Tokens of an attempt, or characters where a file has no tokens."""
        return statistics.fmean(length(attempt) for attempt, _ in self.attempts)


def length(attempt: Attempt) -> float:
    """Tokens, or characters where there are none; only proportions within a file are used."""
    return max(1.0, float(attempt.num_tokens or attempt.features.get("n_chars", 1.0)))


def read_pools(paths: Sequence[Path], at_least: int = 2) -> list[Pool]:
    """The problems of some files that have enough attempts."""
    pools = []
    for number, path in enumerate(paths):
        for row in read_recorded(path):
            attempts = [
                (attempt, right)
                for attempt, right in zip(row.attempts, row.correct, strict=True)
                if not attempt.is_check and attempt.failure not in ("generator_error", "stopped", "interrupted")
            ]
            random.Random(row.problem.id).shuffle(attempts)
            if len(attempts) >= at_least:
                pools.append(Pool(number, row.group, row.problem.statement, attempts))
    return pools


# --- the model of answers ---


def answer_counts(attempts: Sequence[tuple[Attempt, bool]]) -> tuple[int, int, tuple[int, ...]]:
    """How many were right, how many had no answer, and the votes of each wrong answer."""
    wrong = Counter(attempt.answer for attempt, right in attempts if not right and attempt.answer is not None)
    nulls = sum(attempt.answer is None for attempt, _ in attempts)
    return sum(right for _, right in attempts), nulls, tuple(sorted(wrong.values(), reverse=True))


def fit_prior(pools: Sequence[Pool]) -> tuple[PoolPrior, float]:
    """The prior under which the pools are likeliest, and their log chance."""
    seen = Counter(answer_counts(pool.attempts[:MAX_POOL]) for pool in pools)

    def prior_of(v: Sequence[float]) -> PoolPrior:
        right, null, wrong, concentration = (math.exp(x) for x in v[:4])
        return PoolPrior(right, null, wrong, concentration, 1 / (1 + math.exp(-v[4])))

    def loss(v: Sequence[float]) -> float:
        prior = prior_of(v)
        return -sum(times * log_evidence(*counts, prior) for counts, times in seen.items())

    best = pattern_search(loss, [0.0, -2.0, 0.0, 1.0, -1.0])
    return prior_of(best), -loss(best)


def pattern_search(loss: Callable[[Sequence[float]], float], start: list[float]) -> list[float]:
    """A minimum along the axes; the five numbers here need no more."""
    best, low, steps = start, loss(start), [0.7] * len(start)
    while max(steps) > 0.02:
        for i in range(len(start)):
            for sign in (1, -1):
                tried = [*best[:i], max(-6.0, best[i] + sign * steps[i]), *best[i + 1 :]]
                if (value := loss(tried)) < low:
                    best, low, steps[i] = tried, value, steps[i] * 1.4
                    break
            else:
                steps[i] *= 0.5
    return best


def report_prior(paths: Sequence[Path]) -> None:
    """Print the fit of each file."""
    for path in paths:
        pools = read_pools([path])
        prior, log_chance = fit_prior(pools)
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in asdict(prior).items())
        print(f"{path.name}: {len(pools)} problems: {numbers}; log chance {log_chance:.1f}")


# --- demand ---


def report_demand(num_problems: int = 3000, most: int = 24) -> None:
    """Print how many attempts a problem of the prior takes at each price, simulated one attempt at a time."""
    rng = random.Random(1)
    print(f"{num_problems} problems, at most {most} attempts each\nprice  attempts")
    for price in PRICES:
        taken = [attempts_taken(rng, price, most) for _ in range(num_problems)]
        print(f"{price:<6} {statistics.fmean(taken):.2f}")


def attempts_taken(rng: random.Random, price: float, most: int) -> int:
    """Attempts at one problem drawn from the prior while another is worth `price`."""
    draw = [rng.gammavariate(weight, 1) for weight in (PRIOR.right, PRIOR.null, PRIOR.wrong)]
    problem, attempts = Problem("d", "drawn"), []
    wrong: list[int] = []
    while len(attempts) < most:
        state = PoolState(problem, tuple(attempts), 0, len(attempts), 0.0, math.inf)
        if worth_another(state).value < price:
            break
        kind = rng.choices(("right", "null", "wrong"), draw)[0]
        answer = {"right": "right", "null": None}.get(kind, "")
        if kind == "wrong":
            answer = f"wrong {restaurant(rng, wrong)}"
        failure = "no_answer" if answer is None else None
        attempts.append(Attempt("", "d", len(attempts), "code", 0, 1.0, answer, None, (), 1, 0.0, failure=failure))
    return len(attempts)


def restaurant(rng: random.Random, tables: list[int]) -> int:
    """Which wrong answer comes next; `tables` are the votes of those there were and grow."""
    weights = [count - PRIOR.discount for count in tables] + [PRIOR.concentration + PRIOR.discount * len(tables)]
    chosen = rng.choices(range(len(weights)), weights)[0]
    if chosen == len(tables):
        tables.append(0)
    tables[chosen] += 1
    return chosen


# --- difficulty ---


def logistic_fit(x: Array, rates: Array, weights: Array, penalised: Array, ridge: float) -> Array:
    """Ridge logistic regression of rates; x [N, K], penalised [K] is 0 for columns that are not shrunk."""
    beta = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-(x @ beta)))
        gradient = x.T @ (weights * (rates - p)) - ridge * penalised * beta
        hessian = (x.T * (weights * p * (1 - p))) @ x + np.diag(ridge * penalised + 1e-9)
        step = np.linalg.solve(hessian, gradient)
        beta += step
        if np.abs(step).max() < 1e-8:
            break
    return beta


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's, ties by average rank; nan when one of the two is constant."""
    if len(set(a)) < 2 or len(set(b)) < 2:
        return math.nan
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def ranks(values: Sequence[float]) -> Array:
    """Average ranks."""
    _, place, num = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return (np.cumsum(num) - (num - 1) / 2)[place]


def folds_of(pools: Sequence[Pool]) -> NDArray[np.int64]:
    """A fold for each problem; problems of one group share it, and so does a statement that stands in two files."""
    group_of: dict[str, str] = {}
    groups = [group_of.setdefault(" ".join(pool.statement.split()), pool.group) for pool in pools]
    return np.array([random.Random(f"fold {group}").randrange(FOLDS) for group in groups])


def statement_design(pools: Sequence[Pool], num_files: int) -> tuple[list[str], Array, Array, Array]:
    """Names and means of the features, scales of the columns, and the columns with an intercept a file [N, K]."""
    names = sorted(statement_features(""))
    raw = np.array([[statement_features(pool.statement)[name] for name in names] for pool in pools])
    means, scales = raw.mean(0), raw.std(0) + 1e-9
    intercepts = np.array([[float(pool.file == i) for i in range(num_files)] for pool in pools])
    return names, means, scales, np.hstack([intercepts, (raw - means) / scales])


def cross_validated(x: Array, rates: Array, weights: Array, penalised: Array, folds: NDArray[np.int64]) -> Array:
    """Log-odds for each row by a fit that did not see its fold."""
    out = np.zeros(len(x))
    for fold in range(FOLDS):
        held = folds == fold
        out[held] = x[held] @ logistic_fit(x[~held], rates[~held], weights[~held], penalised, RIDGE)
    return out


def report_difficulty(paths: Sequence[Path], out: Path | None) -> None:
    """Fit, print what predicts how much, and write the model."""
    pools = read_pools(paths)
    names, means, scales, x = statement_design(pools, len(paths))
    rates = np.array([pool.rate for pool in pools])
    weights = np.array([min(MAX_WEIGHT, len(pool.attempts)) for pool in pools], dtype=float)
    penalised = np.array([0.0] * len(paths) + [1.0] * len(names))
    folds = folds_of(pools)
    held_out = cross_validated(x, rates, weights, penalised, folds)
    lengths = [-len(pool.statement) for pool in pools]
    for number, path in enumerate(paths):
        mine = [i for i, pool in enumerate(pools) if pool.file == number]
        told = rank_correlation([held_out[i] for i in mine], [rates[i] for i in mine])
        short = rank_correlation([lengths[i] for i in mine], [rates[i] for i in mine])
        print(f"{path.name}: {len(mine)} problems; statement alone {told:+.3f}; its length alone {short:+.3f}")
    beta = logistic_fit(x, rates, weights, penalised, RIDGE)
    model = DifficultyModel(
        intercept=round(float(beta[: len(paths)].mean()), 4),
        weights={name: round(float(w / s), 4) for name, w, s in zip(names, beta[len(paths) :], scales, strict=True)},
        means={name: round(float(mean), 4) for name, mean in zip(names, means, strict=True)},
        precision=round(fit_precision(pools, held_out), 3),
        length_weight=0.0,
        error_weight=0.0,
    )
    after = [report_after(pools, paths, held_out, folds, num) for num in (1, 2, 4)]
    length_weight, error_weight = after[1]
    model = replace(model, length_weight=length_weight, error_weight=error_weight)
    for name in names:
        print(f"  {name}: {model.weights[name]:+.3f}")
    if out is not None:
        provenance = (
            "benchmarks/fit_clock.py difficulty; ridge logistic regression of the share of right attempts, one "
            f"intercept a file, over {len(pools)} problems of " + ", ".join(path.name for path in paths)
        )
        out.write_text(json.dumps({"provenance": provenance, "model": asdict(model)}, indent=1) + "\n", "utf-8")


def report_check(paths: Sequence[Path]) -> None:
    """Print the rank correlation of the shipped model's estimates with the shares of right attempts."""
    for path in paths:
        pools = read_pools([path])
        rates = [pool.rate for pool in pools]
        told = rank_correlation([statement_solve_rate(pool.statement) for pool in pools], rates)
        short = rank_correlation([-len(pool.statement) for pool in pools], rates)
        print(f"{path.name}: {len(pools)} problems; the shipped model {told:+.3f}; length alone {short:+.3f}")


def fit_precision(pools: Sequence[Pool], log_odds: Array) -> float:
    """How far problems with one prediction differ: the precision of the likeliest beta-binomial."""

    def loss(v: Sequence[float]) -> float:
        total = 0.0
        for pool, odds in zip(pools, log_odds, strict=True):
            mean, num = 1 / (1 + math.exp(-odds)), len(pool.attempts)
            right = sum(r for _, r in pool.attempts)
            a, b = mean * math.exp(v[0]), (1 - mean) * math.exp(v[0])
            total += beta_log(a + right, b + num - right) - beta_log(a, b)
        return -total

    return math.exp(pattern_search(loss, [0.0])[0])


def beta_log(a: float, b: float) -> float:
    """Logarithm of the beta function."""
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def report_after(
    pools: Sequence[Pool], paths: Sequence[Path], statement: Array, folds: NDArray[np.int64], num: int
) -> tuple[float, float]:
    """Print how well the first `num` attempts tell the rest; returns the weights of length and errors besides votes."""
    kept = [i for i, pool in enumerate(pools) if len(pool.attempts) >= num + 2]
    averages = [statistics.fmean(pool.mean_length for pool in pools if pool.file == i) for i in range(len(paths))]
    rows, rates = [], []
    for i in kept:
        first = [attempt for attempt, _ in pools[i].attempts[:num]]
        rest = [right for _, right in pools[i].attempts[num:]]
        votes = Counter(attempt.answer for attempt in first if attempt.answer is not None)
        nulls = sum(attempt.answer is None for attempt in first)
        prior = PRIOR.with_solve_rate(1 / (1 + math.exp(-statement[i])))
        rate = expected_solve_rate(tuple(sorted(votes.values(), reverse=True)), nulls, prior)
        mean = statistics.fmean(map(length, first))
        errors = statistics.fmean(attempt.features.get("tool_errors", 0.0) for attempt in first)
        rows.append([math.log(mean / averages[pools[i].file]), errors, math.log(rate / (1 - rate))])
        rates.append(statistics.fmean(rest))
    x, y = np.array(rows), np.array(rates)
    ones, penalised = np.ones(len(x)), np.array([1.0, 1.0, 0.0])
    told = cross_validated(x, y, ones, penalised, folds[kept])
    for number, path in enumerate(paths):
        mine = [k for k, i in enumerate(kept) if pools[i].file == number]
        parts = {
            "statement": [statement[kept[k]] for k in mine],
            "votes": [x[k, 2] for k in mine],
            "length": [-x[k, 0] for k in mine],
            "all": [told[k] for k in mine],
        }
        found = ", ".join(f"{n} {rank_correlation(v, [y[k] for k in mine]):+.3f}" for n, v in parts.items())
        print(f"after {num}: {path.name}, {len(mine)} problems: {found}")
    beta = logistic_fit(x, y, ones, penalised, RIDGE)
    print(f"after {num}: log-odds for length {beta[0]:+.3f}, an error {beta[1]:+.3f}, votes {beta[2]:+.3f}")
    return round(float(beta[0]), 4), round(float(beta[1]), 4)


def expected_solve_rate(counts: tuple[int, ...], nulls: int, prior: PoolPrior) -> float:
    """The chance that the next attempt is right, whatever it answers."""
    chances = answer_chances(counts, nulls, prior)
    total = prior.right + prior.null + prior.wrong + sum(counts) + nulls
    return (
        math.fsum(chance * (prior.right + votes) for chance, votes in zip(chances, (*counts, 0), strict=True)) / total
    )


def report_lengths(paths: Sequence[Path]) -> None:
    """Print how far the lengths of attempts at one problem differ: the standard deviation of their logarithms."""
    for path in paths:
        logs = [
            [math.log(attempt.num_tokens) for attempt, _ in pool.attempts if attempt.num_tokens]
            for pool in read_pools([path])
        ]
        num = sum(len(values) - 1 for values in logs if values)
        squares = math.fsum((x - statistics.fmean(values)) ** 2 for values in logs if values for x in values)
        print(f"{path.name}: {math.sqrt(squares / num) if num else math.nan:.3f}, {num} degrees of freedom")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prior", "demand", "difficulty", "check", "lengths"))
    parser.add_argument("recorded", nargs="*", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.what == "prior":
        report_prior(args.recorded)
    elif args.what == "demand":
        report_demand()
    elif args.what == "check":
        report_check(args.recorded)
    elif args.what == "lengths":
        report_lengths(args.recorded)
    else:
        report_difficulty(args.recorded, args.out)


if __name__ == "__main__":
    main()
