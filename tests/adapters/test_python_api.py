"""`mathlete.solve`, `mathlete.Solver` and `mathlete.open_run`, with a scripted model."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import typer.main
from scripted_model import ScriptedModel

import mathlete
from mathlete import api
from mathlete.cli import solve as solve_command
from mathlete.cli.main import app
from mathlete.core.errors import InputError
from mathlete.core.record import RunRecord

QUICK: dict[str, Any] = {"attempts": 2, "policy": "vote", "progress": False}


def test_one_statement(scripted: ScriptedModel, tmp_path: Path) -> None:
    solutions = mathlete.solve("How many are there?", **QUICK)
    assert solutions.answer == 42 and solutions.answers == {"problem": 42}
    assert solutions.confidence == {"problem": pytest.approx(0.7, abs=0.3)}
    assert solutions.accepted == {"problem": False} and solutions.correct == {}
    assert isinstance(solutions.record, RunRecord) and solutions.record.finished == "complete"
    assert solutions.folder.parent == tmp_path / "runs" or solutions.folder.parent == Path("runs")
    names = {path.name for path in solutions.folder.iterdir()}
    assert {"run.sqlite", "submission.csv", "attempts.jsonl", "report.html"} <= names
    assert not solutions.interrupted and len(solutions) == 1


def test_a_list_of_statements_is_numbered(scripted: ScriptedModel) -> None:
    scripted.answers = {"much": "7"}
    solutions = mathlete.solve(["How many?", "How much?"], **QUICK)
    assert solutions.answers == {"problem-1": 42, "problem-2": 7}
    with pytest.raises(InputError, match="2 answers to 2 problems"):
        _ = solutions.answer


def test_rows_with_labels(scripted: ScriptedModel) -> None:
    rows = [{"problem": "How many?", "answer": 42}, {"id": "b", "problem": "How much?", "answer": "7", "group": "g"}]
    solutions = mathlete.solve(rows, **QUICK)
    assert solutions.answers == {"problem-1": 42, "b": 42}
    assert solutions.correct == {"problem-1": True, "b": False}
    assert solutions.record.problems["b"].group == "g"


def test_labels_that_cannot_be_used_are_told(scripted: ScriptedModel) -> None:
    rows = [{"id": "x", "problem": "How many?", "answer": "many"}, {"id": "y", "problem": "How much?", "answer": 42}]
    solutions = mathlete.solve(rows, **QUICK)
    assert solutions.answers == {"x": 42, "y": 42} and solutions.correct == {"y": True}
    (note,) = solutions.notes
    assert "have no label" in note and "item 1" in note
    assert note in repr(solutions) and "have no label" in solutions._repr_html_()


def test_a_data_frame(scripted: ScriptedModel) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"problem": ["How many?", "How much?"], "answer": [42, None]}, index=[5, 6])
    solutions = mathlete.solve(frame, **QUICK)
    assert solutions.correct == {"problem-1": True}
    table = solutions.to_pandas()
    assert list(table["answer"]) == [42, 42] and list(table["attempts"]) == [2, 2] and list(table["votes"]) == [2, 2]
    assert table.loc[0, "label"] == "42" and pandas.isna(table.loc[1, "label"])


def test_a_file(scripted: ScriptedModel, tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("id,problem,answer\na,How many?,42\nb,How much?,7\n")
    solutions = mathlete.solve(path, limit=1, **QUICK)
    assert solutions.correct == {"a": True}
    assert solutions.record.config["source"] == str(path)
    assert mathlete.solve(str(path), **QUICK).correct == {"a": True, "b": False}


@pytest.mark.parametrize(
    ("problems", "options", "complaint"),
    [
        ("How many?", {"temprature": 1.0}, "there is no option 'temprature'; did you mean temperature?"),
        ("How many?", {"zzz": 1}, "there is no option 'zzz'; there are attempts, backtracking, "),
        ("How many?", {"policy": "best"}, "policy must be one of triad, vote, fixed, pipeline, prometheus, not 'best'"),
        ("How many?", {"attempts": 0}, "attempts must be >= 1, not 0"),
        ("How many?", {"attempts": "three"}, "attempts must be int, not 'three'"),
        ("How many?", {"attempts": 2.5}, "attempts must be int, not 2.5"),
        ("How many?", {"constraints": 1}, "constraints must be bool, not 1"),
        ("How many?", {"top_k": True}, "top_k must be int, not True"),
        ("How many?", {"model": 5}, "model must be str, not 5"),
        ("How many?", {"threads": "4"}, "threads must be int or None, not '4'"),
        ("How many?", {"budget": [60]}, "budget must be a time such as .*, or seconds, not \\[60\\]"),
        ("How many?", {"budget": 10**400}, "budget: int too large"),
        ("How many?", {"limit": "3"}, "limit must be at least 1 and whole, not '3'"),
        ("How many?", {"pillars": 5}, "pillars must be a list of names"),
        ("How many?", {"budget": "soon"}, "budget: 'soon' is not a duration"),
        ("How many?", {"code_timeout": -1}, "code_timeout: "),
        ("How many?", {"pillars": "code"}, r"pillars must be a list of names, such as \['code'\]"),
        ("", {}, "the problem is empty"),
        ("nowhere.csv", {}, "nowhere.csv: file not found"),
        (3, {}, "problems must be text, a path, a list or a data frame, not int"),
        (["How many?"], {"mapping": "x.toml"}, "mapping is for files and data sets"),
        ([], {}, "no problems to solve: it has no rows"),
        (["How many?", 3], {}, "item 2 of the problems must be text or a mapping, not int"),
        ([{"problem": "a b", "id": "x"}, {"problem": "c d", "id": "x"}], {}, "id 'x' was used before, in item 1"),
        ([{"text": "How many?"}], {}, "item 1: problem 'problem-1': has no 'problem' or .*; it has 'text'"),
    ],
)
def test_what_cannot_be_used_is_named(
    scripted: ScriptedModel, problems: Any, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        mathlete.solve(problems, **{**QUICK, **options})
    assert not scripted.configs and not Path("runs").exists()


def test_its_defaults_are_those_of_the_command_line() -> None:
    command = typer.main.get_command(app).commands["solve"]  # type: ignore[attr-defined]
    context = command.make_context("solve", ["How many?"])
    told = solve_command.config_of_flags(context, "How many?", 120.0, "10m", "solve")
    assert api._config({}, "2m", None) == told
    every_option = {name for name in context.params if name in told.__dataclass_fields__} | {"code_timeout"}
    assert every_option - {"command", "source", "budget_s"} == api._OPTIONS


def test_a_solver_loads_its_model_once(scripted: ScriptedModel) -> None:
    with mathlete.Solver(progress=False, max_tokens=64, attempts=3, policy="fixed") as solver:
        first = solver.solve("How many?")
        second = solver.solve(["How much?", "How long?"], attempts=2, budget=60)
        assert len(scripted.configs) == 1 and scripted.num_closed == 0
        with pytest.raises(InputError, match="max_tokens: the model is loaded with it"):
            solver.solve("How many?", max_tokens=32)
    assert scripted.num_closed == 1
    assert [len(first.record.problems[key].attempts) for key in first.answers] == [3]
    assert [len(second.record.problems[key].attempts) for key in second.answers] == [2, 2]
    assert second.record.config["budget_s"] == 60.0 and second.record.config["max_tokens"] == 64
    assert first.folder != second.folder


def test_a_solver_refuses_what_it_cannot_do(scripted: ScriptedModel) -> None:
    with pytest.raises(InputError, match="there is no option 'precison'; did you mean precision"):
        mathlete.Solver(precison="bf16")
    with pytest.raises(InputError, match="does not guess tokens ahead"):
        mathlete.Solver(speculative_method="ngram")


def test_a_solver_whose_run_broke_loads_anew(scripted: ScriptedModel) -> None:
    def break_once(number: int) -> None:
        if number == 1:
            raise RuntimeError("the engine is gone")

    scripted.on_request = break_once
    with mathlete.Solver(progress=False) as solver:
        with pytest.raises(RuntimeError, match="the engine is gone"):
            solver.solve("How many?")
        assert scripted.num_closed == 1
        assert solver.solve("How many?").answer == 42
    assert len(scripted.configs) == 2 and scripted.num_closed == 2


def test_a_solver_is_stopped_from_another_thread(scripted: ScriptedModel) -> None:
    solver = mathlete.Solver(progress=False, policy="fixed", attempts=4, max_in_flight=4)
    scripted.token_s = 0.05
    scripted.on_request = lambda number: solver.stop() if number == 6 else None
    solutions = solver.solve([f"How many are {i}?" for i in range(5)])
    solver.close()
    assert solutions.interrupted and solutions.record.finished == "interrupted"
    assert len(solutions.answers) == 5


def test_it_works_where_an_event_loop_is_running_and_in_other_threads(scripted: ScriptedModel) -> None:
    async def cell() -> mathlete.Solutions:
        return mathlete.solve("How many?", **QUICK)  # as a notebook's cell does: in the loop's own thread

    assert asyncio.run(cell()).answer == 42
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(mathlete.solve("How many?", **QUICK).answer))
    thread.start()
    thread.join(60)
    assert found == [42]


def test_a_run_is_opened_again(scripted: ScriptedModel) -> None:
    solutions = mathlete.solve("How many?", **QUICK)
    for name in (solutions.folder, solutions.folder.name, solutions.folder.name[:20], "latest"):
        again = mathlete.open_run(name)
        assert again.answers == solutions.answers and again.folder.name == solutions.folder.name
    assert again.record.problems["problem"].attempts[0].text == ""  # an outline
    attempts = again.read("problem").attempts
    assert attempts == solutions.record.problems["problem"].attempts and "boxed{42}" in attempts[0].text
    with pytest.raises(InputError, match="there is no problem 'x'"):
        again.read("x")
    with pytest.raises(InputError, match="there is no run 'tomorrow'"):
        mathlete.open_run("tomorrow")


def test_progress_is_a_line_a_problem_where_there_is_no_terminal(
    scripted: ScriptedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    mathlete.solve(["How many?", "How much?"], attempts=2, policy="vote")
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        "problem-1: 42 offered (42 x2; all attempts finished)",
        "problem-2: 42 offered (42 x2; all attempts finished)",
    ]
    assert told.out == ""


def test_importing_it_brings_in_nothing_else() -> None:
    code = (
        "import sys, mathlete\n"
        "heavy = {'numpy', 'torch', 'rich', 'typer', 'pyarrow', 'pandas', 'mathlete.api'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert {'solve', 'open_run', 'Solver', 'Solutions', '__version__'} <= set(dir(mathlete))\n"
        "assert callable(mathlete.solve) and 'torch' not in sys.modules and 'typer' not in sys.modules\n"
        "try: mathlete.sovle\nexcept AttributeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "module 'mathlete' has no attribute 'sovle'\n", done.stderr


@pytest.mark.model
def test_a_real_model_solves_from_python(
    small_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with mathlete.Solver(str(small_model_path), progress=False, max_tokens=256, attempts=2) as solver:
        first = solver.solve("What is $6 \\cdot 7$?", policy="vote", budget="2m")
        second = solver.solve([{"problem": "What is $5 + 8$?", "answer": 13}], policy="vote", budget="2m")
    assert 0 <= first.answer <= 99_999 and list(second.correct) == ["problem-1"]
    assert sum(attempt.num_tokens for attempt in second.record.problems["problem-1"].attempts) > 0
    assert "<math" in first._repr_html_() and second.report_html.is_file()


def test_a_recipe_gives_engines_and_options_and_arguments_go_before_it(scripted: ScriptedModel) -> None:
    Path("mine.toml").write_text(
        '[engines.main]\ntype = "vllm"\nmodel = "a/b"\n[run]\nattempts = 3\nseed = 7\npolicy = "fixed"\nbudget = "1m"\n'
    )
    found = mathlete.solve("How many?", recipe=Path("mine.toml"), progress=False, attempts=2)
    assert list(found.answers.values()) == [42]
    (config,) = scripted.configs
    assert (config.attempts, config.seed, config.policy, config.budget_s) == (2, 7, "fixed", 60.0)
    assert (config.recipe, config.model, len(config.engines)) == ("mine", "a/b", 1)
    with pytest.raises(InputError, match="there is no recipe 'cpu-dem'; did you mean cpu-demo"):
        mathlete.solve("How many?", recipe="cpu-dem")
    with pytest.raises(InputError, match="precision is a setting of one embedded engine"):
        mathlete.solve("How many?", recipe="mine.toml", precision="int4")


def test_a_solver_keeps_a_recipes_engines(scripted: ScriptedModel) -> None:
    with mathlete.Solver(recipe="cpu-demo", progress=False, policy="fixed") as solver:
        solver.solve("How many?", attempts=1)
        with pytest.raises(InputError, match="recipe: the model is loaded with it"):
            solver.solve("How many?", recipe="4xl4")
    assert scripted.configs[0].recipe == "cpu-demo"
    Path("mine.toml").write_text('[run]\nspeculative_method = "ngram"\n')
    with mathlete.Solver(recipe="mine.toml", progress=False) as solver, pytest.raises(InputError, match="recipe asks"):
        solver.solve("How many?")
