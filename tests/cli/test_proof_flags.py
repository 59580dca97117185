"""Flags of ProofSampler: what is refused, and what is recorded."""

from __future__ import annotations

import pytest

from mathlete.compose import LoadedGenerator, RunConfig, add_step_checks, build_constraints
from mathlete.core.errors import EngineError
from mathlete.generators.scripted import ScriptedGenerator


def config(**given: object) -> RunConfig:
    return RunConfig(command="evaluate", source=None, model="m", budget_s=10.0, **given)  # type: ignore[arg-type]


def test_off_changes_nothing() -> None:
    loaded = LoadedGenerator(ScriptedGenerator(lambda asked: "x"), "scripted")
    assert add_step_checks(config(), loaded) is loaded
    assert build_constraints(config(), loaded) is None


def test_constraints_need_a_vocabulary() -> None:
    loaded = LoadedGenerator(ScriptedGenerator(lambda asked: "x"), "scripted")
    with pytest.raises(EngineError, match="scripted does not tell its vocabulary"):
        build_constraints(config(constraints=True), loaded)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backtracking": "much"}, "backtracking must be one of off, on, strict, not 'much'"),
        ({"beam_width": -1}, "beam_width must be >= 0"),
        ({"beam_width": 2, "backtracking": "on"}, "beam_width leaves no use for --backtracking"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(**given)
