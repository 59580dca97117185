"""The exact test of paired problems: published values, counting by hand, its level under no difference."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from mathlete.lab.mcnemar import exact_p, mcnemar_test, mid_p


@pytest.mark.parametrize(
    ("only_first", "only_second", "exact", "mid"),
    [
        (1, 7, 0.0703, 0.0391),  # airway hyper-responsiveness, Fagerland, Lydersen & Laake 2013
        (0, 5, 2 / 32, 1 / 32),
        (0, 6, 2 / 64, 1 / 64),
        (2, 2, 1.0, 1 - 6 / 32),
        (0, 0, 1.0, 0.5),
        (1, 19, 2 * 21 / 2**20, 22 / 2**20),
    ],
)
def test_known_values(only_first: int, only_second: int, exact: float, mid: float) -> None:
    assert exact_p(only_first, only_second) == pytest.approx(exact, rel=6e-3)
    assert exact_p(only_second, only_first) == exact_p(only_first, only_second)
    assert mid_p(only_first, only_second) == pytest.approx(mid, rel=6e-3)


@pytest.mark.parametrize("number", [1, 4, 7, 10])
def test_the_exact_p_is_the_share_of_splits_as_uneven(number: int) -> None:
    splits = [sum(bits) for bits in itertools.product((0, 1), repeat=number)]
    for seen in range(number + 1):
        uneven = sum(abs(2 * split - number) >= abs(2 * seen - number) for split in splits)
        assert exact_p(seen, number - seen) == pytest.approx(uneven / len(splits))


def test_many_problems_come_to_the_normal_theory() -> None:
    deviation = math.sqrt(20_000) / 2
    assert exact_p(9_850, 10_150) == pytest.approx(math.erfc(149.5 / deviation / math.sqrt(2)), abs=2e-4)
    assert mid_p(9_850, 10_150) == pytest.approx(math.erfc(150 / deviation / math.sqrt(2)), abs=2e-4)


def test_the_table_of_two_ways() -> None:
    first = [True, True, False, False, True, True]
    second = [True, False, True, False, False, True]
    test = mcnemar_test(first, second)
    assert (test.both, test.only_first, test.only_second, test.neither) == (2, 2, 1, 1)
    assert test.p_value == 1.0
    with pytest.raises(ValueError, match="same problems twice"):
        mcnemar_test([True], [])


def test_the_exact_test_keeps_its_level_and_mid_p_comes_close() -> None:
    rng = random.Random(3)
    exact = mid = 0
    for _ in range(2_000):
        pairs = [(rng.random() < 0.5, rng.random() < 0.5) for _ in range(40)]
        test = mcnemar_test([one for one, _ in pairs], [two for _, two in pairs])
        exact += test.p_value <= 0.05
        mid += test.mid_p <= 0.05
    assert exact <= mid and exact / 2_000 < 0.05
    assert 0.03 < mid / 2_000 < 0.065
