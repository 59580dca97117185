"""Value clusters and basin refinement, by hand and against all pairs."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from fractions import Fraction

import pytest
from cic_pools import ANSWERS
from hypothesis import given
from hypothesis import strategies as st

from mathlete.cic.answer_values import answer_value
from mathlete.cic.value_clusters import is_close, refine_basin, value_clusters

numbers = st.lists(st.integers(-60, 60) | st.sampled_from([0, 10**40, 10**40 + 1, -(10**40)]), max_size=12)


def groups(answers: list[str]) -> set[tuple[int, ...]]:
    return {cluster.indices for cluster in value_clusters(answers)}


def groups_by_all_pairs(answers: list[str]) -> set[tuple[int, ...]]:
    """The slow twin: single linkage by merging until nothing changes."""
    parts = [{index} for index in range(len(answers))]

    def linked(a: str, b: str) -> bool:
        x, y = answer_value(a), answer_value(b)
        return a == b if x is None or y is None else is_close(x, y)

    merged = True
    while merged:
        merged = False
        for left, right in itertools.combinations(parts, 2):
            if any(linked(answers[i], answers[j]) for i in left for j in right):
                left |= right
                parts.remove(right)
                merged = True
                break
    return {tuple(sorted(part)) for part in parts}


@given(numbers)
def test_single_linkage_of_neighbours_is_that_of_all_pairs(values: list[int]) -> None:
    answers = [str(value) for value in values]
    assert groups(answers) == groups_by_all_pairs(answers)


@given(st.lists(st.sampled_from(ANSWERS), max_size=8))
def test_every_answer_is_in_one_cluster(answers: list[str]) -> None:
    members = [index for cluster in value_clusters(answers) for index in cluster.indices]
    assert sorted(members) == list(range(len(answers)))
    for cluster in value_clusters(answers):
        assert 0 <= cluster.tightness <= 1 and 0 <= cluster.score <= cluster.size
    assert groups(answers) == groups_by_all_pairs(answers)


def test_five_percent_is_of_the_larger_and_not_reached() -> None:
    assert groups(["100", "95"]) == {(0,), (1,)}, "d = 0.05 exactly"
    assert groups(["100", "96"]) == {(0, 1)}
    assert groups(["-100", "-96"]) == {(0, 1)}
    assert groups(["2", "-2"]) == {(0,), (1,)}


def test_single_linkage_chains() -> None:
    assert groups(["100", "104", "108", "112", "200"]) == {(0, 1, 2, 3), (4,)}


def test_pitfall_zero_is_close_to_zero_only() -> None:
    assert groups(["0", "0", "1", "-1", "0.000001"]) == {(0, 1), (2,), (3,), (4,)}
    (zeros,) = value_clusters(["0", "0.0", "-0"])
    assert zeros.tightness == 1


def test_score_by_hand() -> None:
    best, other = value_clusters(["100", "102", "98", "7", "7"])
    assert best.values == (98, 100, 102) and best.indices == (0, 1, 2)
    assert best.tightness == pytest.approx(1 - 2 / 100)
    assert best.score == pytest.approx(3 * math.sqrt(0.98))
    assert (other.size, other.tightness, other.score) == (2, 1.0, 2.0)


def test_pitfall_huge_integers_do_not_overflow() -> None:
    near, far = str(10**400), str(10**400 + 10**390)
    (cluster,) = value_clusters([near, far])
    assert cluster.tightness == pytest.approx(1.0)
    assert groups([near, f"-{far}", "1"]) == {(0,), (1,), (2,)}


def test_equal_values_in_different_words_share_a_cluster_and_texts_do_not() -> None:
    assert groups(["1/2", "0.5", "half", "half", "nan", "5 hours"]) == {(0, 1), (2, 3), (4,), (5,)}


@pytest.mark.parametrize(
    ("values", "refined"),
    [
        ([10], 10),
        ([10, 11], Fraction(21, 2)),
        ([10, 12, 20], 12),  # median 12, mean of the middle 12
        ([1, 2, 3, 4, 10], (3 + 3) / 2),
        ([0, 0, 4, 8, 8, 8, 100, 100], (8 + 7) / 2),  # median 8, mean of 4, 8, 8, 8
    ],
)
def test_refinement_by_hand(values: list[int], refined: float) -> None:
    assert refine_basin([Fraction(value) for value in values]) == Fraction(refined)


@given(st.lists(st.fractions(-1000, 1000), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_a_refined_value_lies_within_its_basin(values: list[Fraction], noise: random.Random) -> None:
    refined = refine_basin(values)
    assert min(values) <= refined <= max(values)
    assert refine_basin(noise.sample(values, len(values))) == refined


def test_refinement_is_right_for_measurements() -> None:
    noise = random.Random(3)
    errors_refined, errors_mode = [], []
    for _ in range(50):
        values = [Fraction(1000 + round(noise.gauss(0, 10), 6)) for _ in range(9)]
        errors_refined.append(abs(refine_basin(values) - 1000))
        errors_mode.append(abs(values[0] - 1000))
    assert statistics.fmean(map(float, errors_refined)) < 0.6 * statistics.fmean(map(float, errors_mode))
