"""Dependence of attempts: the beta-binomial on known data and in simulation, agreement by hand, what cannot be told."""

from __future__ import annotations

import math
import random

import pytest

from mathlete.lab.dependence import answer_agreement, effective_attempts, fit_beta_binomial
from mathlete.lab.pools import AnswerPool

# Boys among the first twelve children of 6,115 families with thirteen, Saxony 1876-1885 (Lindsey & Altham 1998).
SAXONY = dict(enumerate([3, 24, 104, 286, 670, 1033, 1343, 1112, 829, 478, 181, 45, 7]))


def log_likelihood(pairs: list[tuple[int, int]], alpha: float, beta: float) -> float:
    """The slow twin: of log-gamma functions, without binomial coefficients."""

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    return math.fsum(log_beta(alpha + k, beta + n - k) - log_beta(alpha, beta) for k, n in pairs)


def drawn(rng: random.Random, alpha: float, beta: float, sizes: list[int]) -> list[tuple[int, int]]:
    pairs = []
    for size in sizes:
        chance = rng.betavariate(alpha, beta)
        pairs.append((sum(rng.random() < chance for _ in range(size)), size))
    return pairs


def test_a_classic_data_set() -> None:
    fit = fit_beta_binomial((boys, 12) for boys, families in SAXONY.items() for _ in range(families))
    assert (fit.alpha, fit.beta) == pytest.approx((34.1, 31.6), rel=0.01)
    assert fit.mean == pytest.approx(0.519, abs=5e-4)
    assert fit.rho == pytest.approx(1 / (34.1 + 31.6 + 1), rel=0.01)


def test_the_fit_is_the_highest_point_of_the_slow_twins_likelihood() -> None:
    rng = random.Random(1)
    pairs = drawn(rng, 0.8, 1.7, [rng.randint(1, 12) for _ in range(120)])
    fit = fit_beta_binomial(pairs)
    assert fit.alpha is not None and fit.beta is not None and fit.rho_low is not None
    top = log_likelihood(pairs, fit.alpha, fit.beta)
    assert fit.log_likelihood == pytest.approx(top)
    for a in (0.97, 1, 1.03):
        for b in (0.97, 1, 1.03):
            assert log_likelihood(pairs, fit.alpha * a, fit.beta * b) <= top + 1e-9
    at_edge = max(
        log_likelihood(pairs, m * w, (1 - m) * w)
        for w in [(1 - fit.rho_low) / fit.rho_low]
        for m in [x / 2_000 for x in range(1, 2_000)]
    )
    assert 2 * (top - at_edge) == pytest.approx(3.841, abs=0.01), "the interval's end is where the likelihood says"


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.5), (2.0, 1.0), (12.0, 8.0)])
def test_a_fit_finds_the_parameters_that_made_the_data(alpha: float, beta: float) -> None:
    rng = random.Random(5)
    sizes = [rng.choice([2, 4, 8, 16]) for _ in range(1_500)]
    fit = fit_beta_binomial(drawn(rng, alpha, beta, sizes))
    truth = 1 / (alpha + beta + 1)
    assert fit.rho is not None and fit.rho_low is not None and fit.rho_high is not None
    assert fit.mean == pytest.approx(alpha / (alpha + beta), abs=0.03)
    assert fit.rho == pytest.approx(truth, abs=0.035)
    assert fit.rho_low < fit.rho < fit.rho_high and not fit.note


def test_the_interval_covers_about_its_level() -> None:
    rng = random.Random(6)
    hits = 0
    for _ in range(60):
        fit = fit_beta_binomial(drawn(rng, 1.0, 1.5, [6] * 60))
        assert fit.rho_low is not None and fit.rho_high is not None
        hits += fit.rho_low <= 1 / 3.5 <= fit.rho_high
    assert 51 <= hits <= 60


def test_the_edges_are_told() -> None:
    alike = fit_beta_binomial([(2, 4)] * 30)
    assert alike.rho == 0 and alike.alpha == math.inf and "equally hard" in alike.note
    assert alike.rho_high is not None and 0 < alike.rho_high < 0.2
    all_or_none = fit_beta_binomial([(4, 4), (0, 4)] * 20)
    assert all_or_none.rho == pytest.approx(1, abs=1e-5) and "all right or all wrong" in all_or_none.note
    few = fit_beta_binomial([(1, 4), (4, 4), (0, 3), (2, 4)])
    assert few.rho is not None and few.note == "from 4 problems only; read the interval"


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([(1, 1), (0, 1), (1, 1)], "no problem has two attempts"),
        ([(4, 4), (3, 3)], "every attempt is right"),
        ([(0, 4), (0, 3)], "every attempt is wrong"),
        ([(2, 4), (1, 1)], "only one problem has two attempts"),
    ],
)
def test_what_cannot_be_told_is_not_told(pairs: list[tuple[int, int]], why: str) -> None:
    fit = fit_beta_binomial(pairs)
    assert (fit.rho, fit.alpha, fit.effective_attempts(8)) == (None, None, None)
    assert why in fit.note
    assert fit.mean == pytest.approx(sum(k for k, _ in pairs) / sum(n for _, n in pairs))


@pytest.mark.parametrize("pairs", [[], [(3, 2)], [(0, 0)]])
def test_counts_that_are_none(pairs: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        fit_beta_binomial(pairs)


def test_effective_attempts_by_hand() -> None:
    assert effective_attempts(8, 0) == 8 and effective_attempts(8, 1) == 1
    assert effective_attempts(8, 0.5) == pytest.approx(8 / 4.5)
    assert effective_attempts(1, 0.7) == 1
    with pytest.raises(ValueError, match="no effective number"):
        effective_attempts(8, -0.1)


def test_effective_attempts_are_those_with_the_same_variance_of_the_mean() -> None:
    rng = random.Random(2)
    means = [k / n for k, n in drawn(rng, 1.0, 1.0, [8] * 20_000)]
    centre = sum(means) / len(means)
    variance = sum((mean - centre) ** 2 for mean in means) / len(means)
    assert variance == pytest.approx(0.25 / effective_attempts(8, 1 / 3), rel=0.03)


def pool(key: str, answers: list[str | None], right: str = "1") -> AnswerPool:
    return AnswerPool(key, key, tuple(answers), tuple(answer == right for answer in answers))


def test_agreement_by_hand() -> None:
    pools = [pool("a", ["1", "1", "2", None]), pool("b", ["5", "5", "6"]), pool("c", ["9", None])]
    found = answer_agreement(pools)
    assert found.num_problems == 2, "one answer agrees with nothing"
    assert found.within == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert found.between == 0, "no answer stands in two problems"
    assert found.kappa is not None and found.kappa.value == pytest.approx(1 / 3)
    assert found.among_wrong == pytest.approx(1 / 3), "of b's three wrong answers; a has but one"
    assert found.effective_attempts(4) == pytest.approx(4 / (1 + 3 / 3))


def test_agreement_by_chance_is_none() -> None:
    rng = random.Random(3)
    found = answer_agreement([pool(str(i), [rng.choice("12") for _ in range(8)]) for i in range(400)])
    assert found.within == pytest.approx(0.5, abs=0.02) and found.between == pytest.approx(0.5, abs=0.01)
    assert found.kappa is not None and found.kappa.low < 0.01 and abs(found.kappa.value) < 0.03


def test_agreement_that_cannot_be_told() -> None:
    assert answer_agreement([pool("a", ["1", "1"])]).kappa is None
    same = answer_agreement([pool("a", ["1", "1"]), pool("b", ["1", "1"])])
    assert same.kappa is None and same.among_wrong is None and same.effective_attempts(4) is None
