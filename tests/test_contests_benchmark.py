"""Whole contests against the clock, with every fault, under every policy that `benchmarks/contests.py` compares."""

from __future__ import annotations

import importlib.util
import math
import random
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.lab.recorded import RecordedProblem
from mathlete.triad.recorded_source import Faults

FILE = Path(__file__).parents[1] / "benchmarks/contests.py"
BUDGET_S = 17_400.0
ARMS = ("clamp", "fixed", "vote", "triad", "value", "value_weighed")
FAULTS = {
    "none": Faults(),
    "stalls": Faults(stalls=((100.0, 900.0), (5_000.0, 9_000.0), (17_000.0, 17_399.0))),
    "stalled to the end": Faults(stalls=((12_000.0, 40_000.0),)),
    "dead from the start": Faults(dead_from_s=0.0),
    "dies in the middle": Faults(dead_from_s=8_000.0),
    "late steps": Faults(late_step_s=15.0),
    "all at once": Faults(stalls=((50.0, 3_000.0),), dead_from_s=16_000.0, late_step_s=20.0),
}


@pytest.fixture(scope="module")
def contests() -> ModuleType:
    spec = importlib.util.spec_from_file_location("contests", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["contests"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pool() -> list[RecordedProblem]:
    """Twelve problems that want more than the clock has: some agreed, some split, one never answered."""
    rng, made = random.Random(3), []
    for number in range(12):
        problem = Problem(f"p{number}", f"What is {number} + {number}?" * (number + 1))
        attempts = []
        for index in range(12):
            is_right = rng.random() < 0.9 - 0.08 * number
            answer = "7" if is_right else rng.choice((None, "1", "2", "3"))
            answer = None if number == 11 else answer
            tokens = round(300_000 * rng.lognormvariate(0, 0.5))
            failure = None if answer else "no_answer"
            attempts.append(
                Attempt("", problem.id, index, "code", 0, 0.8, answer, None, (), tokens, 9.0, failure=failure)
            )
        correct = tuple(attempt.answer == "7" for attempt in attempts)
        made.append(RecordedProblem(problem, "7", problem.id, tuple(attempts), correct))
    return made


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ARMS)
def test_no_contest_overruns_and_every_problem_has_an_answer(
    contests: ModuleType, pool: list[RecordedProblem], name: str, fault: str
) -> None:
    for seed in (1, 2):
        outcome = contests.hold(seed, pool, contests.arms()[name], FAULTS[fault])
        assert outcome.used_s <= BUDGET_S + FAULTS[fault].late_step_s + 1e-6
        assert outcome.overrun_s == 0 and outcome.answered == len(pool)
        if fault == "none":
            assert 0 < outcome.right < len(pool) and outcome.fallbacks >= 1
        if fault == "dead from the start":
            assert outcome.fallbacks == len(pool) and outcome.tokens == 0


def test_the_same_seed_is_the_same_contest(contests: ModuleType, pool: list[RecordedProblem]) -> None:
    first, again = (contests.hold(5, pool, contests.arms()["value"]) for _ in range(2))
    assert first == again != contests.hold(6, pool, contests.arms()["value"])


def test_a_problem_that_takes_longer_leaves_the_others_their_minimum(
    contests: ModuleType, pool: list[RecordedProblem]
) -> None:
    arm = contests.arms()["value"]
    greedy = replace(arm, policy=replace(arm.policy, first=12))
    outcome = contests.hold(4, pool, greedy, Faults())
    even_s = BUDGET_S / len(pool)
    assert even_s < outcome.longest_s <= arm.config.stretch * even_s + 1e-6 or math.isclose(outcome.used_s, BUDGET_S)
    assert outcome.answered == len(pool)
