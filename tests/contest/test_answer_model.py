"""The model of answers: chances that add up, and exact sums against a simulation and a slow twin."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mathlete.contest.answer_model import (
    PoolPrior,
    answer_chances,
    chance_right,
    log_evidence,
    support_of,
)

PRIOR = PoolPrior(1.4, 0.25, 2.0, 1.4, 0.69)
COUNTS = st.lists(st.integers(1, 5), max_size=4).map(lambda votes: tuple(sorted(votes, reverse=True)))


@given(COUNTS, st.integers(0, 3), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_more_attempts_never_lower_the_chance(counts: tuple[int, ...], nulls: int, num_more: int) -> None:
    now = chance_right(counts, nulls, PRIOR, num_more=num_more)
    assert 0 <= now <= chance_right(counts, nulls, PRIOR, num_more=num_more + 1) + 1e-12 <= 1 + 2e-12


@given(COUNTS, st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_chances_add_up_and_follow_the_votes(counts: tuple[int, ...], nulls: int) -> None:
    chances = answer_chances(counts, nulls, PRIOR)
    assert math.fsum(chances) == pytest.approx(1)
    for (votes, chance), (fewer, less) in itertools.pairwise(zip(counts, chances, strict=False)):
        assert chance > less if votes > fewer else chance == pytest.approx(less)


def test_the_chances_of_all_pools_of_three_attempts_add_up_to_one() -> None:
    """Each sequence of attempts, with the truth told: right (R), null (N), wrong answers by first appearance."""
    total = 0.0
    for kinds in itertools.product("RNW", repeat=3):
        num_wrong = kinds.count("W")
        for partition in partitions(num_wrong):
            total += math.exp(log_evidence(kinds.count("R"), kinds.count("N"), partition, PRIOR))
    assert total == pytest.approx(1)


def partitions(num: int) -> list[tuple[int, ...]]:
    """Block sizes of every set partition of `num` things, one entry a partition."""
    found: list[list[int]] = [[]]
    for _ in range(num):
        grown = []
        for sizes in found:
            grown.append([*sizes, 1])
            grown.extend([*sizes[:i], sizes[i] + 1, *sizes[i + 1 :]] for i in range(len(sizes)))
        found = grown
    return [tuple(sizes) for sizes in found]


def test_the_sums_agree_with_drawn_problems() -> None:
    rng, num, right = random.Random(5), 20_000, 0
    for _ in range(num):
        weights = [rng.gammavariate(weight, 1) for weight in (PRIOR.right, PRIOR.null, PRIOR.wrong)]
        pool: dict[str, int] = {}
        tables: list[int] = []
        nulls = 0
        for _ in range(3):
            kind = rng.choices(("R", "N", "W"), weights)[0]
            nulls += kind == "N"
            if kind == "W":
                chances = [size - PRIOR.discount for size in tables]
                new = PRIOR.concentration + PRIOR.discount * len(tables)
                table = rng.choices(range(len(tables) + 1), [*chances, new])[0]
                tables = [*tables, 0] if table == len(tables) else tables
                tables[table] += 1
                pool[f"W{table}"] = tables[table]
            elif kind == "R":
                pool["R"] = pool.get("R", 0) + 1
        names = sorted(pool, key=lambda name: (-pool[name], rng.random()))
        chances_now = answer_chances(tuple(pool[name] for name in names), nulls, PRIOR)
        right += bool(names) and names[max(range(len(names)), key=lambda i: chances_now[i])] == "R"
    assert chance_right((), 0, PRIOR, num_more=3) == pytest.approx(right / num, abs=4 * 0.5 / math.sqrt(num))


def test_agreement_is_believed() -> None:
    assert chance_right((4,), 0, PRIOR) > chance_right((2,), 0, PRIOR) > chance_right((1,), 0, PRIOR)
    assert chance_right((3,), 0, PRIOR) > chance_right((3, 2), 0, PRIOR)


def test_confidence_enters_as_support() -> None:
    counts = (2, 2, 1)
    support = support_of(0.9, counts, 0, PRIOR)
    assert support > 1
    assert chance_right(counts, 0, PRIOR, support=support) == pytest.approx(0.9)
    gain = chance_right(counts, 0, PRIOR, num_more=3, support=support) - 0.9
    assert 0 <= gain < chance_right(counts, 0, PRIOR, num_more=3) - chance_right(counts, 0, PRIOR)


def test_another_solve_rate_keeps_the_certainty() -> None:
    moved = PRIOR.with_solve_rate(0.7)
    assert moved.right + moved.null + moved.wrong == pytest.approx(3.65)
    assert moved.right == pytest.approx(0.7 * 3.65) and moved.null / moved.wrong == pytest.approx(0.125)
    with pytest.raises(ValueError, match="solve_rate"):
        PRIOR.with_solve_rate(1.0)
    with pytest.raises(ValueError, match="discount"):
        PoolPrior(1, 1, 1, 1, 1.0)
