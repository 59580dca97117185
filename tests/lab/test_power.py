"""Luck and power: known values, pools by hand, and simulated runs that keep what the normal theory promises."""

from __future__ import annotations

import itertools
import math
import random
from statistics import NormalDist, stdev

import numpy as np
import pytest

from mathlete.core.attempt import Attempt
from mathlete.core.errors import InputError
from mathlete.core.problem import Problem
from mathlete.lab.at_k import majority_score
from mathlete.lab.pools import AnswerPool, answer_pools
from mathlete.lab.power import (
    detectable_difference,
    effect_size,
    luck_of_pool,
    power_of,
    problem_luck,
    problems_needed,
    runs_needed,
    standard_error,
    two_run_spread,
)
from mathlete.lab.recorded import RecordedProblem
from mathlete.lab.two_runs import two_run_points


def pool(key: str, answers: list[str | None], right: str = "1") -> AnswerPool:
    return AnswerPool(key, key, tuple(answers), tuple(answer == right for answer in answers))


def pools_of_a_model(rng: random.Random, number: int, attempts: int) -> tuple[list[AnswerPool], list[float]]:
    """Problems whose attempts are right by a chance of their own, and wrong in two ways; and these chances."""
    chances = [rng.betavariate(1.2, 0.9) for _ in range(number)]
    drawn = [
        pool(str(place), ["1" if rng.random() < chance else rng.choice("23") for _ in range(attempts)])
        for place, chance in enumerate(chances)
    ]
    return drawn, chances


def test_runs_needed_by_hand() -> None:
    # (1.9600 + 0.8416)^2 = 7.849; twice 1.7^2 times that is 45.4: "+1 of 50 at a spread of 1.7 needs about 45 runs"
    assert runs_needed(1.7, 1.0, rounded=False) == pytest.approx(45.37, abs=0.01)
    assert runs_needed(1.7, 1.0) == 46
    assert runs_needed(1.7, 2.0) == 12 and runs_needed(0.0, 1.0) == 1
    assert runs_needed(1.0, 0.5, power=0.9) == 85  # two means half a deviation apart: 84 to 86 in published tables


def test_power_by_hand() -> None:
    assert power_of(2.8016, 1.0) == pytest.approx(0.80, abs=1e-3)
    assert power_of(1.96, 1.0) == pytest.approx(0.5, abs=1e-3)
    assert power_of(0.0, 1.0) == pytest.approx(0.05)
    assert power_of(0.1, 0.0) == 1.0


def test_a_standard_error_by_group() -> None:
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert standard_error(values, list("abcdef")) == pytest.approx(stdev(values) / math.sqrt(6))
    assert standard_error(values * 2, list("abcdef") * 2) == pytest.approx(stdev(values) / math.sqrt(6)), (
        "twins add none"
    )
    assert standard_error(values, ["a"] * 6) == 0
    with pytest.raises(ValueError, match="at least one value"):
        standard_error([], [])


def test_what_data_can_show_and_what_data_is_needed_agree() -> None:
    rng = random.Random(1)
    differences = [float(rng.choice([-1, 0, 0, 0, 1])) for _ in range(200)]
    groups = [str(number) for number in range(200)]
    shown = detectable_difference(differences, groups)
    assert shown is not None
    assert problems_needed(differences, groups, shown) in (200, 201)
    assert problems_needed(differences, groups, shown / 2) == pytest.approx(800, abs=1)
    assert detectable_difference([0.0, 0.0], ["a", "b"]) is None
    with pytest.raises(ValueError, match="above 0"):
        problems_needed(differences, groups, 0.0)


def test_simulated_runs_find_the_effect_as_often_as_promised() -> None:
    rng = np.random.default_rng(4)
    chances = rng.beta(1.0, 0.8, size=50)
    better = np.clip(chances + 0.05, 0, 1)
    effect = float((better - chances).sum())
    spread = math.sqrt(float((chances * (1 - chances) + better * (1 - better)).sum()) / 2)
    runs = int(runs_needed(spread, effect))
    found, false_alarms, trials = 0, 0, 2_000
    edge = NormalDist().inv_cdf(0.975) * spread * math.sqrt(2 / runs)
    for _ in range(trials):
        first, second, third = (rng.binomial(runs, chance).sum() / runs for chance in (chances, better, chances))
        found += abs(second - first) > edge
        false_alarms += abs(third - first) > edge
    assert found / trials == pytest.approx(0.80, abs=0.03)
    assert false_alarms / trials == pytest.approx(0.05, abs=0.015)


def test_the_luck_of_a_problem_is_the_mean_over_pairs_of_draws() -> None:
    answers: list[str | None] = ["1", "1", "2", "2", "3", None]
    item = pool("p", answers)
    both, one = [], []
    for first in itertools.combinations(range(6), 2):
        for second in itertools.combinations(set(range(6)) - set(first), 2):
            x, y = (
                majority_score([answers[i] for i in places], [item.correct[i] for i in places])
                for places in (first, second)
            )
            both.append(x * y)
            one.append(x * (1 - y) + y * (1 - x))
    found = problem_luck(item, 2, np.random.default_rng(0), 40_000)
    assert found.method == "apart"
    assert found.both == pytest.approx(sum(both) / len(both), abs=0.01)
    assert found.one == pytest.approx(sum(one) / len(one), abs=0.01)
    assert found.chance == pytest.approx(found.both + found.one / 2, abs=0.01), "a run is half of a pair"


def test_luck_is_known_without_bias_where_runs_can_draw_apart() -> None:
    rng = random.Random(11)
    pools, chances = pools_of_a_model(rng, 600, 10)
    luck = luck_of_pool(pools, 1)
    truth = sum(chance * (1 - chance) for chance in chances) / len(chances)
    assert luck.num_apart == 600
    assert luck.variance == pytest.approx(truth, rel=0.05)
    assert luck.accuracy == pytest.approx(sum(chances) / len(chances), abs=0.02)


def test_the_spread_is_that_of_simulated_runs() -> None:
    rng = random.Random(12)
    pools, chances = pools_of_a_model(rng, 200, 16)
    luck = luck_of_pool(pools, 5)
    totals = []
    for _ in range(250):
        score = 0.0
        for chance in chances:
            answers = ["1" if rng.random() < chance else rng.choice("23") for _ in range(5)]
            score += rng.random() < majority_score(answers, [answer == "1" for answer in answers])
        totals.append(score)
    assert luck.spread(200) == pytest.approx(stdev(totals), rel=0.12)
    assert 200 * luck.accuracy == pytest.approx(sum(totals) / 250, rel=0.04)
    assert luck.spread_of_contests(200) > luck.spread(200)


def test_a_pool_without_twice_the_attempts_is_drawn_with_replacement_and_says_so() -> None:
    pools, _ = pools_of_a_model(random.Random(13), 300, 16)
    enough, short = luck_of_pool(pools, 8), luck_of_pool([pool(p.problem_id, list(p.answers[:8])) for p in pools], 8)
    assert enough.num_apart == 300 and short.num_apart == 0
    assert 0.6 * enough.variance < short.variance < enough.variance


def test_problems_with_too_few_attempts_are_counted() -> None:
    pools = [pool("a", ["1"] * 4), pool("b", ["1", "2"]), pool("c", [])]
    luck = luck_of_pool(pools, 2)
    assert ([item.problem_id for item in luck.problems], luck.num_short) == (["a", "b"], 1)
    assert luck_of_pool(pools, 2) == luck
    with pytest.raises(InputError, match="ask for 1 to 4"):
        luck_of_pool(pools, 5)
    with pytest.raises(InputError, match="no attempts"):
        luck_of_pool([pool("c", [])], 1)


def test_a_sure_pool_has_no_luck() -> None:
    luck = luck_of_pool([pool(str(i), ["1"] * 4 if i % 2 else ["2"] * 4) for i in range(20)], 2)
    assert (luck.accuracy, luck.variance, luck.spread(50)) == (0.5, 0.0, 0.0)
    size = effect_size(luck, 1, 50)
    assert (size.runs, size.problems, size.power_of_one, size.by_luck) == (1, 1, 1.0, 0.0)
    silent = luck_of_pool([pool("s", [None, None])], 1)
    assert (silent.accuracy, silent.variance) == (0, 0)


def test_the_score_of_two_runs_is_the_mean_of_their_scores() -> None:
    pools, chances = pools_of_a_model(random.Random(14), 200, 8)
    luck = luck_of_pool(pools, 1)
    two = two_run_spread(luck, 50)
    assert two.both + two.one / 2 == pytest.approx(two.expected, abs=0.3)
    assert two.both + two.one + two.none == pytest.approx(50)
    rng = random.Random(15)
    points = [
        sum(two_run_points(rng.random() < chance, rng.random() < chance) for chance in chances) for _ in range(600)
    ]
    assert two.spread * 2 == pytest.approx(stdev(points), rel=0.1)  # of 200 problems, twice that of 50


def test_effects_that_are_none() -> None:
    luck = luck_of_pool([pool("a", ["1", "2"])], 1)
    for effect in (0.0, 51.0):
        with pytest.raises(InputError, match="above 0 and at most"):
            effect_size(luck, effect, 50)


def test_an_effect_that_no_test_sees() -> None:
    luck = luck_of_pool([pool("a", ["1", "2"])], 1)
    with pytest.raises(InputError, match="0.000001 problems at least, not 1e-300"):
        effect_size(luck, 1e-300, 50)
    assert effect_size(luck, 1e-6, 50).runs > 10**12


def recorded(key: str, *attempts: Attempt, statement: str = "?") -> RecordedProblem:
    return RecordedProblem(
        Problem(key, statement), "1", key, attempts, tuple(attempt.answer == "1" for attempt in attempts)
    )


def attempt(answer: str | None, **other: object) -> Attempt:
    known: dict[str, object] = {"pillar": "code", "failure": None, **other}
    return Attempt("p#0", "p", 0, seed=0, temperature=0.8, answer=answer, answer_source=None, turns=(), num_tokens=1,
                   elapsed_s=1.0, **known)  # type: ignore[arg-type]  # fmt: skip


def test_recordings_of_one_problem_are_one_pool() -> None:
    one = recorded("p", attempt("1"), attempt(None, failure="no_answer"))
    two = recorded(
        "p", attempt("2"), attempt(None, failure="stopped"), attempt("1", round=2), attempt(None, pillar="sympy_check")
    )
    assert answer_pools([one, two, recorded("q")]) == [pool("p", ["1", None, "2"]), pool("q", [])]
    with pytest.raises(InputError, match="not the same in all recordings"):
        answer_pools([one, recorded("p", attempt("1"), statement="!")])
