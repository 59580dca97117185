"""Difficulty from statements and from first attempts; and the deadline that a hard problem may have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.contest.clock import longest_s, share_s
from mathlete.contest.difficulty import (
    BAND_MINUTES,
    band_chances,
    difficulty_model,
    solve_rate,
    statement_features,
    weight_of,
)
from mathlete.core.attempt import Attempt, Turn
from mathlete.core.code import ToolResult
from mathlete.core.problem import Problem

EASY = Problem("e", "What is the probability that a fair coin shows heads? Give it in percent.")
HARD = Problem(
    "h",
    r"Let $S$ be the set of all functions $f$ such that for every integer $n$ with $1 \le n \le 100000$ the number"
    r" $f(n)$ divides $n^{2024} + 12345678$, and define $a_{k}$ as the largest number of solutions of $f(x) = k$ in a"
    r" triangle of lattice points. Find the smallest $m$ satisfying $a_m > a_{m + 1} + 99991$ for every such $f$",
)


def pool(*answers: str | None, tokens: int = 1_000) -> list[Attempt]:
    return [Attempt(f"e#{i}", "e", i, "code", 0, 0.8, a, None, (), tokens, 1.0) for i, a in enumerate(answers)]


def test_features_count_what_is_there() -> None:
    features = statement_features(r"How many triangles have $a + b \le 1{,}000$? Let $a = 20$.")
    assert features["counts"] == features["geometry"] == features["defines"] == 1 and features["chance"] == 0
    assert features["log_sentences"] == pytest.approx(1.0986, abs=1e-4)
    assert set(features) == set(difficulty_model().weights)


def test_a_long_and_abstract_statement_gets_more_time_within_the_bands() -> None:
    assert weight_of(HARD) > 1 > weight_of(EASY)
    widest = max(BAND_MINUTES.values()) / min(BAND_MINUTES.values())
    assert 1 / widest < weight_of(EASY) and weight_of(HARD) < widest


def test_band_chances_add_up_and_move_with_the_solve_rate() -> None:
    low, high = band_chances(0.2, 3.0), band_chances(0.8, 3.0)
    assert sum(low.values()) == pytest.approx(1) and set(low) == set(BAND_MINUTES)
    assert low["hard"] > high["hard"] and low["quick"] < high["quick"]


def test_first_attempts_tell_by_how_they_went_and_not_by_their_votes() -> None:
    before = solve_rate(EASY)
    assert solve_rate(HARD) < before
    usual = solve_rate(EASY, pool("1", "1", "1"), 1_000)
    assert usual == pytest.approx(before) == pytest.approx(solve_rate(EASY, pool("1", "2", None), 1_000))
    long = pool("1", "1", "1", tokens=4_000)
    assert solve_rate(EASY, long, 1_000) < usual < solve_rate(EASY, pool("1", tokens=250), 1_000)
    assert solve_rate(EASY, long) == usual, "nobody tells what is usual"
    failed = Turn("", "1/0", ToolResult("error", "", "", 0.1))
    assert solve_rate(EASY, [replace(long[0], num_tokens=1_000, turns=(failed,))], 1_000) < usual
    others = [replace(long[0], round=2), replace(long[0], pillar="smt_check"), replace(long[0], failure="stopped")]
    assert solve_rate(EASY, others, 1_000) == before


def test_the_shipped_model_says_where_it_comes_from() -> None:
    file = Path(__file__).parents[2] / "src/mathlete/contest/difficulty.json"
    assert "fit_clock.py" in json.loads(file.read_text("utf-8"))["provenance"]


@pytest.mark.shared
def test_the_later_problems_of_a_contest_look_harder(shared_dir: Path) -> None:
    rows = map(json.loads, (shared_dir / "problems/aime_1983_2023.jsonl").read_text("utf-8").splitlines())
    weights: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        number = int(row["id"].rsplit("_", 1)[1])
        if (number <= 5 or number > 10) and int(row["id"].split("-")[1].split("_")[0]) % 4 == 0:
            weights[number > 10].append(weight_of(Problem(row["id"], row["problem"])))
    assert len(weights[True]) > 50 < len(weights[False])
    assert sum(weights[True]) / len(weights[True]) > sum(weights[False]) / len(weights[False])


@pytest.mark.parametrize("takes", [[1.0] * 50, [9.0] * 50, [9.0] * 25 + [0.2] * 25])
def test_however_long_others_take_everybody_gets_half_an_even_share(takes: list[float]) -> None:
    left, even = 1_000.0, 1_000.0 / len(takes)
    for place, wanted in enumerate(takes):
        waiting = len(takes) - place - 1
        share = share_s(left, weight=1, total_weight=waiting + 1, num_parallel=1)
        longest = longest_s(share, left, stretch=3, even_s=even, num_waiting=waiting, num_parallel=1)
        assert 0.5 * even - 1e-9 <= longest <= left + 1e-9
        left -= min(longest, wanted * even)
    assert left >= -1e-9


def test_a_stretch_of_one_is_the_share() -> None:
    assert longest_s(20, 100, stretch=1, even_s=20, num_waiting=4, num_parallel=1) == 20
    assert longest_s(20, 100, stretch=3, even_s=20, num_waiting=4, num_parallel=1) == 60
    assert longest_s(20, 60, stretch=3, even_s=20, num_waiting=4, num_parallel=1) == 20
    with pytest.raises(ValueError, match="stretch"):
        longest_s(20, 60, stretch=0.5, even_s=20, num_waiting=4, num_parallel=1)
