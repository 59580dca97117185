"""Ctrl-C in a notebook or at a prompt: what is there is given back."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from scripted_model import ScriptedModel

import mathlete
from mathlete.session import run_session


def solve(solver: mathlete.Solver) -> mathlete.Solutions:
    return solver.solve([f"How many are {i}?" for i in range(4)], policy="fixed", attempts=3)


@pytest.fixture
def solver(scripted: ScriptedModel) -> mathlete.Solver:
    return mathlete.Solver(progress=False, max_in_flight=4)


def test_once_ends_the_run_in_order(scripted: ScriptedModel, solver: mathlete.Solver) -> None:
    scripted.token_s = 0.02
    scripted.on_request = lambda number: signal.raise_signal(signal.SIGINT) if number == 5 else None
    before = signal.getsignal(signal.SIGINT)
    solutions = solve(solver)
    assert solutions.interrupted and solutions.record.finished == "interrupted"
    assert solutions.answers.keys() == {f"problem-{number}" for number in range(1, 5)}
    assert solutions.report_html.is_file() and "interrupt" in repr(solutions)
    assert signal.getsignal(signal.SIGINT) == before
    scripted.on_request = lambda number: None
    assert not solve(solver).interrupted and len(scripted.configs) == 1  # the model was kept
    solver.close()


def test_twice_stops_at_once(scripted: ScriptedModel, solver: mathlete.Solver) -> None:
    def twice(number: int) -> None:
        if number == 6:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    scripted.token_s, scripted.on_request = 0.02, twice
    solutions = solve(solver)
    assert solutions.interrupted and solutions.record.finished is None
    assert (solutions.folder / "submission.csv").is_file() and not solutions.report_html.exists()
    assert scripted.num_closed == 1  # what is left in the engine must not meet the next run
    again = mathlete.solve("How many?", progress=False, policy="vote", attempts=2)
    assert again.answer == 42


def test_before_the_run_has_begun_there_is_nothing_to_give_back(
    scripted: ScriptedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run_session, "load_generator", lambda config, console: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        mathlete.solve("How many?", progress=False)
    assert not list((tmp_path / "runs").iterdir())
