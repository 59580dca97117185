"""Calibration: by hand, the Brier score's parts, bins of equal mass, intervals of a reliability curve."""

from __future__ import annotations

import random

import pytest

from mathlete.lab.calibration import calibration


def test_four_predictions_by_hand() -> None:
    figures = calibration([0.85, 0.85, 0.25, 1.0], [1, 0, 0, 1])
    assert figures.ece == pytest.approx((2 * 0.35 + 0.25 + 0) / 4)
    assert figures.brier == pytest.approx((0.0225 + 0.7225 + 0.0625) / 4)
    assert [(item.low, item.count) for item in figures.bins] == [(0.2, 1), (0.8, 2), (0.9, 1)]


def test_the_parts_of_a_brier_score_by_hand() -> None:
    # 0.2 is stated five times and one of them right; 0.8 five times and four right: calibrated, half of all right
    figures = calibration([0.2] * 5 + [0.8] * 5, [1, 0, 0, 0, 0, 1, 1, 1, 1, 0])
    parts = figures.parts
    assert (figures.brier, figures.ece) == pytest.approx((0.16, 0.0))
    assert (parts.reliability, parts.resolution, parts.uncertainty) == pytest.approx((0, 0.09, 0.25))
    assert parts.within_bins == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("fractional", [False, True])
def test_the_parts_add_up_and_the_last_is_what_bins_hide(fractional: bool) -> None:
    rng = random.Random(4)
    chances = [rng.random() for _ in range(300)]
    right = [rng.choice([0.0, 1.0, 0.5]) if fractional else float(rng.random() < chance) for chance in chances]
    figures = calibration(chances, right)
    parts = figures.parts
    whole = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins
    assert whole == pytest.approx(figures.brier)
    hidden = 0.0  # variance of the chances in a bin, less twice their covariance with the truth
    for item in figures.bins:
        inside = [(c, t) for c, t in zip(chances, right, strict=True) if item.low <= c < item.high]
        hidden += sum((c - item.stated) ** 2 - 2 * (c - item.stated) * (t - item.right) for c, t in inside)
    assert parts.within_bins == pytest.approx(hidden / 300)


def test_sure_and_right_is_perfect_and_sure_and_wrong_is_the_worst() -> None:
    perfect, worst = calibration([1.0, 0.0], [1, 0]), calibration([1.0, 0.0], [0, 1])
    assert (perfect.brier, perfect.ece, perfect.parts.resolution) == (0, 0, 0.25)
    assert (worst.brier, worst.ece, worst.parts.reliability) == (1, 1, 1)


def test_bins_of_equal_mass_hold_as_many_each_and_keep_equal_chances_together() -> None:
    rng = random.Random(9)
    chances = [0.9 + rng.random() / 10 for _ in range(95)]  # all in one bin of equal width
    figures = calibration(chances, [float(rng.random() < 0.9) for _ in chances])
    assert len(figures.bins) == 1 and len(figures.mass_bins) == 10
    assert {item.count for item in figures.mass_bins} == {9, 10}
    assert [item.high for item in figures.mass_bins][-1] == max(chances)
    crowded = calibration([0.5] * 30 + [0.1, 0.9], [1, 0] * 16)
    assert [item.count for item in crowded.mass_bins] == [31, 1]
    assert sum(item.count for item in crowded.mass_bins) == 32


def test_both_errors_vanish_with_many_calibrated_predictions() -> None:
    rng = random.Random(2)
    chances = [rng.random() for _ in range(20_000)]
    figures = calibration(chances, [float(rng.random() < chance) for chance in chances])
    assert figures.ece < 0.012 and figures.ece_equal_mass < 0.012
    assert figures.brier == pytest.approx(1 / 6, abs=0.005)  # the mean of p (1 - p), p uniform
    inside = sum(item.interval.low <= item.stated <= item.interval.high for item in figures.bins)
    assert inside >= 8


def test_a_bins_interval_is_wilsons() -> None:
    (item,) = calibration([0.55] * 10, [1.0] * 5 + [0.0] * 5).bins
    assert (item.interval.value, item.interval.low, item.interval.high) == pytest.approx(
        (0.5, 0.23659, 0.76341), abs=1e-4
    )


@pytest.mark.parametrize(
    ("chances", "right", "message"),
    [([], [], "at least one"), ([0.5], [1, 0], "a truth for each"), ([1.5], [1], "in .0, 1."), ([0.5], [2], "in .0")],
)
def test_what_cannot_be_judged(chances: list[float], right: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibration(chances, right)
