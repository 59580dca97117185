"""Contests over recorded attempts: drawn from a seed, against a clock, once or twice."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from recorded_pool import pool, problem

from mathlete.contest.policy import FixedPolicy
from mathlete.core.errors import InputError
from mathlete.lab.contest import draw_contest, draw_faults, hold_contest
from mathlete.lab.contest_replay import ContestReplay, replay_contests
from mathlete.triad.driver import DriverConfig
from mathlete.triad.recorded_source import Faults, Speed

POOL = pool(20, 12)
SMALL = ContestReplay(num_problems=10, limit_s=300.0, num_contests=4, slots=4, attempts=6)


@pytest.mark.parametrize("policy", ["fixed", "vote", "triad"])
def test_no_contest_overruns_and_every_problem_has_an_answer(policy: Any) -> None:
    told: list[tuple[int, int]] = []
    figures = replay_contests(POOL, replace(SMALL, policy=policy), on_progress=lambda n, num: told.append((n, num)))
    assert (figures.num_overruns, figures.num_unanswered, figures.num_problems) == (0, 0, 10)
    assert 0 <= figures.worst <= figures.right.value <= figures.best <= 10
    assert figures.right.low <= figures.right.value <= figures.right.high
    assert 0 < figures.time_share <= 1 + figures.latest_s / SMALL.budget_s
    assert told == [(n, 4) for n in (1, 2, 3, 4)]
    json.dumps(figures.as_dict())


def test_with_two_runs_the_score_is_half_of_what_both_got_right() -> None:
    """(1 if both, 0.5 if one) over all problems is the mean of the two counts, in each contest."""
    figures = replay_contests(POOL, SMALL)
    assert figures.two_run_score is not None
    assert figures.two_run_score.value == pytest.approx(figures.right.value)
    assert replay_contests(POOL, replace(SMALL, num_runs=1)).two_run_score is None


def test_the_same_seed_is_the_same_contest_with_one_process_or_two() -> None:
    config = replace(SMALL, num_contests=2)
    first = replay_contests(POOL, config)
    assert first == replay_contests(POOL, config) == replay_contests(POOL, config, num_processes=2)
    assert first != replay_contests(POOL, replace(config, seed=9))


def test_a_second_run_meets_other_attempts_where_there_are_enough() -> None:
    items = [problem("p", ["7"] * 4 + ["1"] * 4)]
    contest = draw_contest(items, 3, 1, 100.0)
    driving = DriverConfig(attempts=4, max_in_flight=4, max_open=1)

    def tokens(skipped: int) -> set[int]:
        numbered = replace(
            items[0], attempts=tuple(replace(a, num_tokens=10**i) for i, a in enumerate(items[0].attempts))
        )
        held = hold_contest(
            replace(contest, problems=(numbered,), faults=Faults()), FixedPolicy(4), driving, budget_s=100.0,
            limit_s=100.0, speed=None, num_skipped=skipped,
        )  # fmt: skip
        return {i for i in range(8) if str(held.tokens).zfill(8)[7 - i] == "1"}

    assert len(tokens(0)) == len(tokens(4)) == 4 and not tokens(0) & tokens(4)
    assert tokens(8) == tokens(0), "round again"


def test_a_shorter_clock_and_a_slower_machine_answer_less() -> None:
    calm = replace(SMALL, has_faults=False, num_runs=1, speed=Speed(10.0))
    usual = replay_contests(POOL, calm)
    for harder in (replace(calm, limit_s=60.0), replace(calm, speed=Speed(10.0, half_at=0.5))):
        told = replay_contests(POOL, harder)
        assert told.right.value < usual.right.value and told.num_unanswered == 0
        assert told.latest_s == 0.0


def test_a_recording_with_fewer_problems_than_a_contest_gives_them_all() -> None:
    assert replay_contests(POOL, replace(SMALL, num_problems=50, num_contests=1)).num_problems == 20


def test_a_clock_needs_seconds_or_a_speed() -> None:
    timeless = [problem(f"p{i}", ["7", "1"], elapsed_s=0.0) for i in range(3)]
    with pytest.raises(InputError, match="give a speed in tokens a second"):
        replay_contests(timeless, SMALL)
    assert replay_contests(timeless, replace(SMALL, speed=Speed(50.0), num_contests=1)).num_problems == 3


def test_faults_are_drawn_of_every_kind() -> None:
    drawn = [draw_faults(random.Random(seed), 17_400.0) for seed in range(200)]
    assert any(f.stalls for f in drawn) and any(f.late_step_s for f in drawn)
    assert any(f.dead_from_s < 17_400.0 for f in drawn) and any(f == Faults() for f in drawn)
    ordered = [edge for f in drawn for span in f.stalls for edge in span]
    assert all(begin < end for f in drawn for begin, end in f.stalls) and min(ordered) >= 0


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"num_runs": 3}, "num_runs must be 1 or 2"),
        ({"num_problems": 0}, "num_problems must be >= 1"),
        ({"limit_s": 0.0}, "limit_s must be > 0"),
        ({"policy": "oracle"}, "policy must be one of"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ContestReplay(**fields)
