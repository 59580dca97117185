"""`--policy prometheus --cured`: which faults a live run makes."""

from __future__ import annotations

from typing import Any

import pytest

from mathlete.compose import build_policy
from mathlete.run_config import RunConfig, decode_config
from mathlete.triad.prometheus import PrometheusPolicy
from mathlete.triad.prometheus_answers import FAULTS, NO_FAULTS, Faults


def config(**options: Any) -> RunConfig:
    return RunConfig("solve", None, "m", 10.0, **options)


def policy(**options: Any) -> PrometheusPolicy:
    built = build_policy(config(policy="prometheus", **options))
    assert isinstance(built, PrometheusPolicy)
    return built


def test_the_whole_of_it_unless_something_is_cured() -> None:
    assert policy(attempts=5, temperature=0.3) == PrometheusPolicy(Faults(), 5, 0.3)
    assert policy(cured=("told_wrong",)).faults == Faults(told_wrong=False)
    assert policy(cured=FAULTS).faults == NO_FAULTS


def test_a_resumed_run_has_the_same_faults() -> None:
    recorded = {"command": "solve", "source": None, "model": "m", "budget_s": 10.0, "policy": "prometheus"}
    assert decode_config({**recorded, "cured": ["numerology"]}) == config(policy="prometheus", cured=("numerology",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "prometheus", "cured": ("hope",)}, "cured may name no_reasoning, .*, not hope"),
        ({"policy": "vote", "cured": ("told_wrong",)}, "cured is for --policy prometheus, and the policy is vote"),
    ],
)
def test_what_cannot_be_cured_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)
