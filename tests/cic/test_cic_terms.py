"""H, C_multi, F and confidence: by hand, their bounds, and numbers that break careless arithmetic."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from cic_pools import attempt, pools, told, votes_for
from hypothesis import given
from hypothesis import strategies as st

from mathlete.cic.disorder import posterior_entropy, published_entropy, shannon_entropy
from mathlete.cic.functional import (
    CicParameters,
    CicTerms,
    cic_terms,
    close_pairs,
    coherence_of,
    confidence_of,
    range_term,
)
from mathlete.cic.majority import votes_of
from mathlete.cic.ncd import cohesion, trace_of
from mathlete.core.attempt import Attempt

numbers = st.lists(st.integers(-1000, 1000).map(str), max_size=9)


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=9))
def test_published_entropy_is_the_variance_over_the_squared_mean(values: list[int]) -> None:
    expected = min(1.0, statistics.variance(value / statistics.fmean(values) for value in values))
    assert published_entropy([str(value) for value in values]) == pytest.approx(expected)


def test_published_entropy_by_hand() -> None:
    assert published_entropy(["1", "3"]) == pytest.approx(0.5)  # variance 2, mean 2
    assert published_entropy(["7", "7", "7"]) == 0
    assert published_entropy(["0", "0"]) == 0
    assert published_entropy(["-5", "5"]) == 1, "mean 0"
    assert published_entropy(["1", "1000"]) == 1, "cut at 1"
    assert published_entropy(["5"]) == 0
    assert published_entropy(["5", "nan", "none"]) == 0


def test_pitfall_huge_integers_do_not_overflow() -> None:
    huge = [str(10**40), str(10**40 + 1), str(-(10**400)), str(10**400 - 1)]
    assert published_entropy(huge) == 1
    assert 0 <= coherence_of(huge) <= 1
    assert published_entropy(huge[:2]) == pytest.approx(5e-81)


def test_pitfall_published_entropy_does_not_see_disagreement() -> None:
    answers = [str(value) for value in range(1000, 1010)]
    assert published_entropy(answers) < 0.0001
    assert shannon_entropy(answers) == pytest.approx(1)


def test_shannon_entropy_by_hand() -> None:
    assert shannon_entropy(["a", "a", "b", "b"]) == pytest.approx(math.log(2) / math.log(4))
    assert shannon_entropy(["a"] * 5) == 0
    assert shannon_entropy(["a"]) == shannon_entropy([]) == 0


def test_posterior_entropy_weighs_with_the_models_confidence() -> None:
    sure, unsure = {"mean_entropy": 0.0}, {"mean_entropy": math.log(3)}
    pool = [attempt(0, "1", sure), attempt(1, "2", unsure)]
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert posterior_entropy(votes_of(pool)) == pytest.approx(expected)
    silent = votes_for("1", "2", "2")
    assert posterior_entropy(silent) == pytest.approx(shannon_entropy(["1", "2", "2"]))
    mixed = [attempt(0, "1", unsure), attempt(1, "2")]
    assert posterior_entropy(votes_of(mixed)) == pytest.approx(1), "who does not tell counts as the others"


def test_coherence_by_hand() -> None:
    answers = ["100", "100", "103", "200"]
    assert close_pairs(Counter(answers)) == pytest.approx(3 / 6)
    mean = 503 / 4
    assert range_term(answers) == pytest.approx(1 / (1 + 100 / mean))
    assert coherence_of(answers) == pytest.approx(0.5 * 2 / 4 + 0.3 * 3 / 6 + 0.2 / (1 + 100 / mean))
    assert coherence_of(["4", "4"]) == pytest.approx(1)
    assert coherence_of(["4"]) == pytest.approx(0.5 + 0.2), "no pair agrees in a pool of one"
    assert coherence_of([]) == 0


def test_range_at_a_mean_of_zero() -> None:
    assert range_term(["0", "0"]) == 1
    assert range_term(["-1", "1"]) == 0
    assert range_term(["text"]) == 0


@given(numbers)
def test_close_pairs_are_those_of_the_definition(answers: list[str]) -> None:
    values = [int(answer) for answer in answers]
    pairs = [(a, b) for index, a in enumerate(values) for b in values[:index]]
    close = sum(a == b or 20 * abs(a - b) < max(abs(a), abs(b)) for a, b in pairs)
    assert close_pairs(Counter(answers)) == pytest.approx(close / len(pairs) if pairs else 0.0)


def test_f_by_hand() -> None:
    pool = told(("4", "two and two are four"), ("4", "2 + 2 = 4, so four"), ("5", "the sum is five"))
    votes = votes_of(pool)
    phi = cohesion([trace_of(a) for a in pool])
    terms = cic_terms(votes)
    assert terms.phi == phi and phi is not None
    assert terms.entropy == published_entropy(["4", "4", "5"])
    assert terms.coherence == coherence_of(["4", "4", "5"])
    assert terms.f == pytest.approx(phi - 0.5 * terms.entropy + 0.3 * terms.coherence)
    other = cic_terms(votes, CicParameters(entropy_weight=2, coherence_weight=0, entropy="shannon"))
    assert other.f == pytest.approx(phi - 2 * shannon_entropy(["4", "4", "5"]))


def test_without_texts_f_goes_without_phi() -> None:
    assert cic_terms(votes_for("4", "4")) == CicTerms(phi=None, entropy=0.0, coherence=1.0, f=0.3)


@pytest.mark.parametrize(("f", "confidence"), [(0, 0.5), (0.5, 0.75), (5, 0.95), (-5, 0.05), (0.9, 0.95)])
def test_confidence_is_clamped(f: float, confidence: float) -> None:
    assert confidence_of(f) == confidence


@given(pools, st.sampled_from(["published", "shannon", "posterior"]), st.randoms(use_true_random=False))
def test_terms_are_bounded_and_know_no_order(pool: list[Attempt], entropy: Any, noise: random.Random) -> None:
    votes = votes_of(pool)
    parameters = CicParameters(entropy=entropy)
    terms = cic_terms(votes, parameters)
    assert 0 <= terms.entropy <= 1 and 0 <= terms.coherence <= 1
    assert terms.phi is None or 0 <= terms.phi <= 1
    assert -0.5 <= terms.f <= 1.3
    assert cic_terms(noise.sample(votes, len(votes)), parameters) == terms


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("entropy_weight", -1), ("coherence_weight", math.nan), ("proximity", Fraction(1)), ("min_confidence", 0.99),
        ("range_weight", -0.1),
    ],
)  # fmt: skip
def test_a_parameter_out_of_range_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        CicParameters(**{field: value})
