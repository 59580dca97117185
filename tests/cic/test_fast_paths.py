"""What is reckoned once for all rules, or faster than by its definition, against the slow way."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from cic_pools import ANSWERS, attempt, pool_of, told
from hypothesis import given
from hypothesis import strategies as st

from mathlete.cic.answer_values import answer_value
from mathlete.cic.disorder import squared_variation
from mathlete.cic.functional import close_pairs
from mathlete.cic.majority import tally, votes_of
from mathlete.cic.ncd import MAX_PAIRS, _ordered_ncd, cohesion, estimated_cohesion, ncd
from mathlete.cic.ncd_vote import NcdVote
from mathlete.cic.registry import SELECTORS
from mathlete.cic.remembering import remember_last
from mathlete.cic.value_clusters import is_close
from mathlete.core.problem import Problem

answers = st.lists(st.sampled_from(ANSWERS), max_size=10)
fractions = st.fractions(-50, 50, max_denominator=12)


def test_only_the_last_tuple_is_remembered() -> None:
    asked: list[int] = []

    @remember_last
    def length(items: object) -> int:
        asked.append(1)
        return len(items)  # type: ignore[arg-type]

    first, second = (1, 2), (1, 2, 3)
    assert [length(first), length(first), length(second), length(first)] == [2, 2, 3, 2]
    assert len(asked) == 3
    changing = [1]
    assert length(changing) == 1
    changing.append(2)
    assert length(changing) == 2, "a list may change, so nothing is remembered of it"


@given(answers)
def test_what_is_remembered_is_what_is_reckoned(given: list[str]) -> None:
    pool = tuple(pool_of(*given, None))
    for reckon in (votes_of, tally):
        assert reckon(pool) is reckon(pool)
        assert reckon(pool) == reckon.__wrapped__(pool) == reckon(list(pool))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", SELECTORS)
def test_a_rule_chooses_the_same_whoever_chose_before(name: str) -> None:
    noise = random.Random(name)
    problem = Problem("p", "How many of 7?")
    for _ in range(12):
        features = [{"mean_entropy": noise.random(), "prm_last": noise.random()} for _ in range(9)]
        pool = tuple(attempt(i, noise.choice([*ANSWERS, None]), features[i], "so " * i) for i in range(9))
        alone = SELECTORS[name]().select(problem, list(pool))
        for other in SELECTORS.values():
            other().select(problem, pool)
        assert SELECTORS[name]().select(problem, pool) == alone


@given(st.lists(fractions, min_size=2, max_size=8))
def test_variation_in_integers_is_that_in_fractions(values: list[Fraction]) -> None:
    n, total = len(values), sum(values, Fraction(0))
    mean = total / n
    expected = None if total == 0 else sum((value - mean) ** 2 for value in values) / (n - 1) / mean**2
    assert squared_variation(values) == expected


@given(answers)
def test_close_pairs_of_neighbours_are_those_of_all(given: list[str]) -> None:
    def close(a: str, b: str) -> bool:
        x, y = answer_value(a), answer_value(b)
        return a == b or (x is not None and y is not None and is_close(x, y))

    pairs = list(itertools.combinations(given, 2))
    expected = sum(close(a, b) for a, b in pairs) / len(pairs) if pairs else 0.0
    assert close_pairs(Counter(given)) == expected


@given(answers)
def test_votes_near_an_answer_are_those_of_all_pairs(given: list[str]) -> None:
    rule = NcdVote()

    def counts_for(other: str, answer: str) -> bool:
        a, b = answer_value(answer), answer_value(other)
        if other == answer:
            return True
        return a is not None and b is not None and abs(b - a) < rule.proximity * max(abs(a), Fraction(1))

    chosen = rule.select(Problem("p", "?"), pool_of(*given))
    scores = {cluster.answer: cluster.weight for cluster in chosen.clusters}
    assert scores == {answer: float(sum(counts_for(other, answer) for other in given)) for answer in given}


def texts_of(number: int) -> list[bytes]:
    noise = random.Random(number)
    return [b" ".join(noise.choice([b"so", b"then", b"hence", b"7"]) for _ in range(30)) for _ in range(number)]


@pytest.mark.parametrize("number", [0, 1, 2, 7, 12])
def test_of_few_texts_the_estimate_is_the_mean_of_all_pairs(number: int) -> None:
    phi, estimate = cohesion(texts_of(number)), estimated_cohesion([b"", *texts_of(number)])
    assert estimate == (None if phi is None else pytest.approx(phi, abs=1e-12))
    assert math.comb(12, 2) == MAX_PAIRS


def test_of_many_texts_so_many_pairs_are_taken_and_each_text_counts() -> None:
    texts = texts_of(40)
    pairs = [(i, i - 1) for i in range(1, 40)] + [(i, i - 2) for i in range(2, 2 + MAX_PAIRS - 39)]
    assert estimated_cohesion(texts) == pytest.approx(1 - sum(ncd(texts[i], texts[j]) for i, j in pairs) / MAX_PAIRS)
    assert estimated_cohesion(texts) == pytest.approx(cohesion(texts), abs=0.03)


def test_the_rules_over_texts_do_not_compare_all_pairs_of_a_large_pool() -> None:
    pool = tuple(
        replace(item, id=f"p#{i}") for i, item in enumerate(told(*((str(i % 2), f"{i} is it") for i in range(60))))
    )
    _ordered_ncd.cache_clear()
    SELECTORS["cic"]().select(Problem("p", "?"), pool)
    SELECTORS["ncd_vote"]().select(Problem("p", "?"), pool)
    assert _ordered_ncd.cache_info().misses <= 3 * MAX_PAIRS, "of the pool and of two answers; both rules share them"
