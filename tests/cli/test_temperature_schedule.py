"""`--temperature-schedule`: which temperature the waves of a live run have."""

from __future__ import annotations

from typing import Any

import pytest
from calling import Mathlete

from mathlete.compose import build_policy
from mathlete.run_config import RunConfig, decode_config
from mathlete.triad.integration import TriadPolicy


def config(**options: Any) -> RunConfig:
    return RunConfig("solve", None, "m", 10.0, **{"policy": "triad", **options})


@pytest.mark.parametrize(("schedule", "anneals"), [("fixed", False), ("annealed", True)])
def test_the_policy_anneals_when_it_is_told_to(schedule: str, anneals: bool) -> None:
    built = build_policy(config(temperature_schedule=schedule))
    assert isinstance(built, TriadPolicy) and built.config.anneals is anneals


def test_a_run_of_before_there_was_a_schedule_is_resumed_with_a_fixed_one() -> None:
    recorded = {"command": "solve", "source": None, "model": "m", "budget_s": 10.0, "policy": "triad"}
    assert decode_config(recorded).temperature_schedule == "fixed"
    assert decode_config({**recorded, "temperature_schedule": "annealed"}) == config(temperature_schedule="annealed")


def test_what_makes_no_sense_is_refused(mathlete: Mathlete) -> None:
    called = mathlete("solve", "1+1?", "--temperature-schedule", "hot")
    assert called.code == 2 and "--temperature-schedule must be one of fixed, annealed" in called.err
    called = mathlete("solve", "1+1?", "--policy", "vote", "--temperature-schedule", "annealed")
    assert called.code == 2 and "is for --policy triad, and the policy is vote" in called.err
