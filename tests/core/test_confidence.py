"""Confidence features against their definitions, written out the slow way."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.confidence import GROUP_TOKENS, confidence_features, top5_entropies, window_means
from mathlete.core.generation import TokenLogprob

values = st.lists(st.floats(-20, 0), min_size=1, max_size=60)


def test_each_by_hand() -> None:
    features = confidence_features((-1.0, -3.0), (0.5, 1.0), (-4.0, -8.0))
    assert features == {
        "mean_logprob": -2.0,
        "mean_entropy": 0.75,
        "median_entropy": 0.75,
        "tail_entropy": 0.75,
        "mean_confidence": 6.0,
        "tail_confidence": 6.0,
        "bottom_10_percent_group": 6.0,
        "min_window_confidence": 6.0,
    }


@pytest.mark.parametrize(
    ("told", "names"),
    [
        (((), (), ()), set()),
        (((-1.0,), (), ()), {"mean_logprob"}),
        (((), (1.0,), ()), {"mean_entropy", "median_entropy", "tail_entropy"}),
    ],
)
def test_what_the_generator_does_not_tell_is_left_out(told: tuple[tuple[float, ...], ...], names: set[str]) -> None:
    assert set(confidence_features(*told)) == names


def test_tails_and_groups_of_a_long_attempt() -> None:
    """Confident at first, then 300 tokens of doubt, then confident again: 3048 tokens make 1001 groups."""
    top_means = [-9.0] * 1500 + [-3.0] * 300 + [-9.0] * 1248
    entropies = [0.2] * 2792 + [0.8] * 256
    features = confidence_features((), entropies, top_means)
    groups = sorted(-statistics.fmean(top_means[i : i + GROUP_TOKENS]) for i in range(1001))
    assert features["mean_confidence"] == pytest.approx(-statistics.fmean(top_means))
    assert features["tail_confidence"] == pytest.approx(-statistics.fmean(top_means[-2048:]))
    assert features["min_window_confidence"] == pytest.approx(groups[0])
    assert features["bottom_10_percent_group"] == pytest.approx(statistics.fmean(groups[:100]))
    assert features["tail_entropy"] == pytest.approx(0.8)
    assert features["median_entropy"] == 0.2


@given(values, st.integers(1, 70))
def test_window_means(series: list[float], width: int) -> None:
    slow = [statistics.fmean(series[i : i + width]) for i in range(max(1, len(series) - width + 1))]
    assert window_means(series, width) == pytest.approx(slow, abs=1e-9)


def test_the_five_likeliest_in_bits() -> None:
    even = tuple(TokenLogprob(i, math.log(1 / 8)) for i in range(6))
    sure = (TokenLogprob(7, 0.0), *(TokenLogprob(i, -800.0) for i in range(4)))
    bits = top5_entropies([even, sure])
    mean = pytest.approx((5 / 8 * 3 + 0) / 2)
    assert confidence_features((), (), (), bits) == {"top5_entropy_bits": mean, "tail_top5_entropy_bits": mean}
    assert top5_entropies([even, sure[:4]]) == (), "four are not enough"
