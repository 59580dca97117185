"""`--recipe` on `solve` and `evaluate`, and `mathlete recipes`, from arguments to files."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import scripted_cli
from calling import Mathlete
from rich.console import Console

from mathlete.compose import LoadedGenerator
from mathlete.generators.scripted import Reply, ScriptedGenerator
from mathlete.recipes.loading import recipe_names
from mathlete.run_config import EngineSpec, RunConfig
from mathlete.session import run_session
from watching import stored

Find = Callable[[], Path]
MINE = """
[engines.main]
type = "vllm"
model = "a/b"
max_model_len = 4096
[engines.other]
type = "openai_server"
model = "c"
pillars = ["reasoning"]
[run]
attempts = 2
budget = "1m30s"
code_timeout = 3
pillars = ["code"]
checks = []
second_round = 0
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def test_a_run_by_a_recipe_is_recorded_with_its_engines(mathlete: Mathlete, mine: Path, only_run: Find) -> None:
    called = mathlete("solve", "What is 6 times 7?", "--recipe", mine)
    assert called.code == 0, called.err
    config = stored(only_run()).config
    assert (config["recipe"], config["model"], config["attempts"], config["budget_s"]) == ("mine", "a/b", 2, 90.0)
    assert (config["code_timeout_s"], config["pillars"], config["policy"]) == (3.0, ["code"], "triad")
    assert [engine["name"] for engine in config["engines"]] == ["main", "other"]
    assert config["engines"][0]["settings"] == {"max_model_len": 4096}


def test_flags_go_before_the_recipe(mathlete: Mathlete, mine: Path, only_run: Find) -> None:
    flags = ("--attempts", "1", "--budget", "2m", "--policy", "vote", "--code-timeout", "7s", "--pillars", "code")
    assert mathlete("solve", "How many?", "--recipe", mine, *flags).code == 0
    config = stored(only_run()).config
    assert (config["attempts"], config["budget_s"], config["policy"]) == (1, 120.0, "vote")
    assert config["code_timeout_s"] == 7.0


def test_a_flag_that_says_what_a_default_says_goes_before_the_recipe_too(
    mathlete: Mathlete, mine: Path, only_run: Find
) -> None:
    assert mathlete("solve", "How many?", "--recipe", mine, "--attempts", "8").code == 0
    assert stored(only_run()).config["attempts"] == 8


def test_evaluate_makes_all_attempts_unless_the_recipe_says_otherwise(
    mathlete: Mathlete, problems: Path, only_run: Find
) -> None:
    called = mathlete("evaluate", problems, "--recipe", "cpu-demo", "--attempts", "2", "--json")
    assert called.code == 0, called.err
    assert all(row["num_attempts"] == 2 for row in json.loads(called.out)["problems"])
    config = stored(only_run()).config
    assert (config["policy"], config["precision"], config["command"]) == ("fixed", "w8a8", "evaluate")


def test_the_only_engine_takes_flags_of_engines(mathlete: Mathlete, tmp_path: Path, only_run: Find) -> None:
    (tmp_path / "big.gguf").write_text("")
    flags = ("--model", "big.gguf", "--precision", "int4", "--attempts", "1")
    called = mathlete("solve", "How many?", "--recipe", "cpu-demo", *flags)
    assert called.code == 0, called.err
    config = stored(only_run()).config
    assert (config["model"], config["precision"], config["engines"]) == (str(tmp_path / "big.gguf"), "int4", [])


def test_what_cannot_be_given_beside_these_engines(mathlete: Mathlete, mine: Path) -> None:
    called = mathlete("solve", "How many?", "--recipe", mine, "--model", "x")
    assert called.code == 2 and "--model cannot say which of the engines main, other is meant" in called.err
    called = mathlete("solve", "How many?", "--recipe", mine, "--precision", "int4")
    assert called.code == 2
    assert "--precision is a setting of one embedded engine, and the recipe mine has main (vllm), other" in called.err
    called = mathlete(
        "solve", "How many?", "--recipe", mine, "--attempts", "1", "--policy", "vote", "--second-round", "2"
    )
    assert called.code == 2 and "--second-round is for --policy triad" in called.err
    mine.write_text(MINE.replace("second_round = 0", "second_round = 1"))
    called = mathlete("solve", "How many?", "--recipe", mine, "--policy", "vote")
    assert called.code == 2
    assert "this does not go with the recipe mine: second_round is for --policy triad, and the policy is" in called.err


def test_resuming_needs_no_recipe(
    mathlete: Mathlete, mine: Path, problems: Path, only_run: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RunConfig] = []

    def load(config: RunConfig, console: Console) -> LoadedGenerator:
        seen.append(config)
        token_s = 60.0 if len(seen) == 1 else 0.0
        return LoadedGenerator(
            ScriptedGenerator(lambda request: Reply.saying(r"\boxed{42}", token_s=token_s)), "scripted"
        )

    monkeypatch.setattr(run_session, "load_generator", load)
    assert mathlete("solve", problems, "--recipe", mine, "--budget", "0.5s").code == 0
    mine.unlink()
    assert mathlete("solve", "--resume", "latest", "--recipe", "x").code == 2, "a run goes on as it was begun"
    called = mathlete("solve", "--resume", only_run(), "--budget", "1m", "--json")
    assert [row["answer"] for row in json.loads(called.out)["problems"]] == [42, 42, 42]
    assert seen[0].engines == seen[1].engines
    assert seen[1].engines[0] == EngineSpec("main", "vllm", "a/b", settings={"max_model_len": 4096})
    assert (seen[1].recipe, seen[1].budget_s) == ("mine", 60.0)


def test_paths_are_relative_to_the_recipe(mathlete: Mathlete, tmp_path: Path, only_run: Find) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "m.gguf").write_text("")
    (tmp_path / "columns.toml").write_text('[problem]\nstatement = "q"\n')
    (folder / "mine.toml").write_text(
        '[engines.main]\ntype = "ryanstream"\nmodel = "m.gguf"\n[run]\nattempts = 1\nmapping = "../columns.toml"\n'
    )
    (tmp_path / "asked.jsonl").write_text('{"q": "How many?"}\n')
    called = mathlete("solve", "asked.jsonl", "--recipe", "weights/mine.toml")
    assert called.code == 0, called.err
    config = stored(only_run()).config
    assert config["model"] == str(folder / "m.gguf")
    assert Path(config["mapping"]).samefile(tmp_path / "columns.toml")


@pytest.mark.parametrize("kind", ["vllm", "ryanstream"])
def test_a_model_that_is_not_there_is_told_before_anything_is_loaded(
    mathlete: Mathlete, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "mine.toml").write_text(f'[engines.main]\ntype = "{kind}"\nmodel = "./weights"\n')
    called = mathlete("solve", "How many?", "--recipe", "mine.toml")
    assert called.code == 2 and f"there is no model at {tmp_path / 'weights'}" in called.err
    (tmp_path / "weights").mkdir()
    called = mathlete("solve", "How many?", "--recipe", "mine.toml")
    assert called.code == 2 and "has no config.json, so it is no model's folder" in called.err
    (tmp_path / "weights" / "config.json").write_text("{}")
    called = mathlete("solve", "How many?", "--recipe", "mine.toml")
    assert called.code == 2 and "weights has no tokenizer (none of tokenizer.json," in called.err
    assert not (tmp_path / "runs").exists()
    (tmp_path / "weights" / "tokenizer.json").write_text("{}")
    assert mathlete("solve", "How many?", "--recipe", "mine.toml", "--attempts", "1").code == 0, "left to the engine"


def test_an_error_in_a_recipe_as_a_person_sees_it(mathlete: Mathlete, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[engines.main]\ntype = "vllm"\nmodel = "x"\ntensor_paralel_size = 2\n')
    called = mathlete("solve", "How many?", "--recipe", "mine.toml")
    assert (called.code, called.out) == (2, "")
    assert called.err == (
        "error: mine.toml:4: [engines.main] 'tensor_paralel_size' is no setting of vllm; did you mean "
        "tensor_parallel_size?\n"
    )
    (tmp_path / "mine.toml").write_text('"\\u001b[31m" = 1\n')
    assert "\x1b[31m" not in mathlete("solve", "How many?", "--recipe", "mine.toml").err


def test_the_list_and_one_of_it(mathlete: Mathlete, mine: Path) -> None:
    told = mathlete("recipes", "list").out
    assert all(name in told for name in recipe_names()) and "1x h100-sxm-80gb" in told
    facts = json.loads(mathlete("recipes", "list", "--json").out)
    assert [recipe["name"] for recipe in facts] == recipe_names()
    told = mathlete("recipes", "show", "4xl4").out
    assert "tensor_parallel_size   4" in told and "4x l4-24gb" in told and "17,400 s for solving" in told
    shown = json.loads(mathlete("recipes", "show", mine, "--json").out)
    assert shown["run_config"]["attempts"] == 2 and shown["engines"][1]["pillars"] == ["reasoning"]
    assert mathlete("recipes", "show", "4xl").code == 2


def test_the_recipe_of_a_run_is_what_a_scripted_model_was_asked_for(
    mathlete: Mathlete, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run by `mine` with the script gives the script's answers, as one without it does."""
    monkeypatch.setattr(run_session, "load_generator", scripted_cli.load_scripted)
    flags = ("--attempts", "2", "--seed", "5", "--checks", "none", "--second-round", "0", "--pillars", "code", "--json")
    by_recipe = json.loads(mathlete("solve", "How many?", "--recipe", mine, *flags).out)
    without = json.loads(mathlete("solve", "How many?", *flags).out)
    assert by_recipe["problems"] == without["problems"]


def test_a_copy_to_change(mathlete: Mathlete, tmp_path: Path) -> None:
    assert "mathlete recipes show own.toml" in mathlete("recipes", "copy", "4xl4", "own.toml").out
    assert tomllib.loads((tmp_path / "own.toml").read_text())["hardware"]["count"] == 4
    assert "tensor_parallel_size   4" in mathlete("recipes", "show", "own.toml").out
    called = mathlete("recipes", "copy", "cpu-demo", "own.toml")
    assert called.code == 2 and "own.toml is there already" in called.err
    assert mathlete("recipes", "copy", "4xl", "other.toml").code == 2
    called = mathlete("recipes", "copy", "4xl4", "none/other.toml")
    assert called.code == 4 and "cannot be written" in called.err


@pytest.mark.parametrize("name", recipe_names())
def test_a_plan_can_be_made_of_each_recipe_and_it_fits(mathlete: Mathlete, name: str) -> None:
    called = mathlete("plan", name)
    assert called.code == 0, called.out + called.err
    assert ("nothing to fit" if name == "openai-server" else "it fits") in called.out


@pytest.mark.parametrize("command", ["solve", "evaluate"])
def test_the_pipeline_by_a_recipe_and_by_a_flag(
    mathlete: Mathlete, problems: Path, only_run: Find, tmp_path: Path, command: str
) -> None:
    (tmp_path / "mine.toml").write_text(
        '[run]\npolicy = "pipeline"\nscorer = "fewest_tokens"\nattempts = 3\npillars = ["code"]\n'
    )
    called = mathlete(command, problems, "--recipe", "mine.toml", "--json")
    assert called.code == 0, called.err
    assert [row["rule"] for row in json.loads(called.out)["problems"]] == ["pipeline"] * 3
    record = stored(only_run())
    assert (record.config["policy"], record.config["scorer"]) == ("pipeline", "fewest_tokens")
    again = json.loads(mathlete("replay", only_run(), "--redecide", "--json").out)
    assert again, "the run's own policy decides as it was recorded"
    by_flag = mathlete(command, problems, "--policy", "pipeline", "--attempts", "3", "--pillars", "code", "--json")
    assert [row["answer"] for row in json.loads(by_flag.out)["problems"]] == [42, 42, 42]
    refused = mathlete(command, problems, "--scorer", "fewest_tokens")
    assert refused.code == 2 and "--scorer is for --policy pipeline" in refused.err
