"""The bootstrap by group: parity with its slow twin, coverage, groups, ratios, bounded memory."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from mathlete.lab import bootstrap
from mathlete.lab.bootstrap import (
    Estimate,
    bootstrap_estimates,
    group_counts,
    percentile_estimate,
    ratio_estimate,
    resampled_means,
    wilson_interval,
)


def slow_twin(
    columns: Mapping[str, Sequence[float]], groups: Sequence[str], draws: Sequence[Sequence[int]]
) -> dict[str, Estimate]:
    """The same in plain Python: of each draw the groups by number, one entry each time a group was drawn."""
    names = list(dict.fromkeys(groups))
    found = {}
    for name, values in columns.items():
        means = []
        for draw in draws:
            rows = [value for number in draw for value, group in zip(values, groups, strict=True)
                    if group == names[number]]  # fmt: skip
            means.append(sum(rows) / len(rows))
        means.sort()
        tail = round(len(means) * 0.025)
        found[name] = Estimate(sum(values) / len(values), means[tail], means[-1 - tail])
    return found


def draws_of(num_groups: int, resamples: int, seed: int) -> list[list[int]]:
    counts = np.concatenate(list(group_counts(num_groups, resamples, seed)))
    return [np.repeat(np.arange(num_groups), row).tolist() for row in counts]


@pytest.mark.parametrize("cells", [1 << 20, 50])
def test_the_same_draws_give_the_slow_twins_intervals(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    monkeypatch.setattr(bootstrap, "_MAX_CELLS", cells)
    rng = random.Random(5)
    groups = [f"g{rng.randrange(9)}" for _ in range(24)]
    columns = {name: [rng.random() for _ in groups] for name in "xyz"}
    num_groups = len(set(groups))
    fast = bootstrap_estimates(columns, groups, seed=11, resamples=400)
    slow = slow_twin(columns, groups, draws_of(num_groups, 400, seed=11))
    for name in columns:
        assert (fast[name].value, fast[name].low, fast[name].high) == pytest.approx(
            (slow[name].value, slow[name].low, slow[name].high), rel=1e-12
        )


def test_each_draw_has_as_many_groups_as_there_are_and_each_is_as_likely() -> None:
    counts = np.concatenate(list(group_counts(7, 5_000, seed=0)))
    assert counts.shape == (5_000, 7) and (counts.sum(axis=1) == 7).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=4 * (6 / 7 / 5_000) ** 0.5)
    assert counts.var() == pytest.approx(6 / 7, abs=0.05)  # of a multinomial count, 7 * 1/7 * 6/7


def test_memory_is_bounded_by_the_chunk_not_by_the_resamples() -> None:
    groups = [str(number) for number in range(4_000)]
    columns = {"x": np.linspace(0, 1, 4_000)}
    tracemalloc.start()
    bootstrap_estimates(columns, groups, resamples=2_000)  # 8 million draws, 64 MB if they were all kept
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 48e6


def test_the_bootstrap_covers_about_its_level() -> None:
    rng = random.Random(7)
    groups = [str(number) for number in range(60)]
    hits = 0
    for seed in range(150):
        values = [float(rng.random() < 0.4) for _ in groups]
        estimate = bootstrap_estimates({"x": values}, groups, seed=seed, resamples=300)["x"]
        hits += estimate.low <= 0.4 <= estimate.high
    assert 0.88 <= hits / 150 <= 0.99


def test_the_bootstrap_draws_whole_groups() -> None:
    values = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    apart = bootstrap_estimates({"x": values}, list("abcdefgh"))["x"]
    together = bootstrap_estimates({"x": values}, list("aaaabbbb"))["x"]
    assert (together.value, together.low, together.high) == (0.5, 0.0, 1.0)
    assert 0 < apart.low < apart.value == 0.5 < apart.high < 1


def test_the_bootstrap_is_seeded_and_needs_rows() -> None:
    columns, groups = {"x": [number**0.5 for number in range(20)]}, [str(number) for number in range(20)]
    assert bootstrap_estimates(columns, groups, seed=3) == bootstrap_estimates(columns, groups, seed=3)
    assert bootstrap_estimates(columns, groups, seed=3) != bootstrap_estimates(columns, groups, seed=4)
    with pytest.raises(ValueError, match="at least one problem"):
        bootstrap_estimates({"x": []}, [])
    with pytest.raises(ValueError, match="a value of each column"):
        bootstrap_estimates({"x": [1.0]}, ["a", "b"])
    with pytest.raises(ValueError, match="finite"):
        bootstrap_estimates({"x": [1.0, float("nan")]}, ["a", "b"])


def test_columns_are_drawn_together() -> None:
    rng = random.Random(2)
    groups = [str(number) for number in range(50)]
    first = [rng.random() for _ in groups]
    columns = {"first": first, "second": [value + 0.25 for value in first], "gain": [0.25] * 50}
    means = resampled_means(columns, groups)
    assert means["second"] - means["first"] == pytest.approx(means["gain"])
    assert bootstrap_estimates(columns, groups)["gain"] == Estimate(0.25, 0.25, 0.25)


def test_a_ratio_is_drawn_above_and_below_together() -> None:
    rng = random.Random(3)
    groups = [str(number) for number in range(40)]
    below = [rng.uniform(1, 9) for _ in groups]
    ratio = ratio_estimate([2 * value for value in below], below, groups)
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2, 2, 2))
    assert ratio_estimate([1.0, 2.0], [0.0, 0.0], ["a", "b"]) is None
    sparse = ratio_estimate([1.0, 1.0, 1.0], [1.0, 0.0, 0.0], list("abc"))
    assert sparse is not None and sparse.value == 3 and sparse.low == 1, "draws without a lower sum are left out"


def test_a_percentile_interval_by_hand() -> None:
    estimate = percentile_estimate(7.0, np.arange(1_000.0)[::-1])
    assert estimate == Estimate(7.0, 25.0, 974.0)


def test_a_fraction_of_a_right_answer_has_an_interval_too() -> None:
    low, half, high = (wilson_interval(number, 10) for number in (4, 4.5, 5))
    assert low.low < half.low < high.low and low.high < half.high < high.high
