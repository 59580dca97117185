"""Flags of ProofSampler: what is refused, and what is recorded."""

from __future__ import annotations

import pytest

from mathlete.compose import LoadedGenerator, add_step_checks, build_constraints
from mathlete.core.errors import EngineError
from mathlete.core.problem import Problem
from mathlete.generators.chat_format import CHATML, DEEPSEEK_R1
from mathlete.generators.scripted import ScriptedGenerator
from mathlete.proof_sampler.token_constraint import TextConstraint
from mathlete.run_config import RunConfig


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


def test_thinking_that_the_chat_format_opens_is_no_part_of_what_is_constrained() -> None:
    generator, letters = ScriptedGenerator(lambda asked: "x"), [bytes([i]) for i in range(256)]
    problem = Problem("p", "1 + 1?")
    for chat_format, num_taken in ((DEEPSEEK_R1, 11), (CHATML, 6)):
        loaded = LoadedGenerator(
            generator, "scripted", vocabulary=letters, eos_token_ids=(0,), turn_start=chat_format.turn_start
        )
        constraints = build_constraints(config(constraints=True), loaded)
        assert constraints is not None
        thinking = constraints(problem, "")
        assert isinstance(thinking, TextConstraint) and thinking.validate(b"\\right) $}$") == num_taken
        answering = constraints(problem, "hm, \\right) $ } </think>\n")
        assert isinstance(answering, TextConstraint) and answering.validate(b"\\right)") == 6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backtracking": "much"}, "backtracking must be one of off, on, strict, not 'much'"),
        ({"beam_width": -1}, "beam_width must be >= 0"),
        ({"beam_soft_terms": True}, "beam_soft_terms counts in the score of a beam: give --beam-width too"),
        ({"beam_width": 2, "backtracking": "on"}, "beam_width leaves no use for --backtracking"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(**given)
