"""The recipes that come with Mathlete: each can be read, asks for what it says, and fits the machine that it names."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mathlete.recipes.gpus import num_gpus
from mathlete.recipes.loading import load_recipe, recipe_names
from mathlete.run_config import RunConfig, decode_config
from mathlete.session.configuring import complete_config

ROOT = Path(__file__).parents[2]
BY_DEFAULT = {"policy": "triad", "precision": "auto", "model": "1.5b", "budget_s": 600.0}


def config_of(name: str) -> RunConfig:
    return load_recipe(name).run_config("solve")


@pytest.mark.parametrize("name", recipe_names())
def test_each_can_be_read_and_is_short(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.description.endswith(".")
    assert sum(not engine.pillars for engine in recipe.engines) == 1
    lines = [line for line in recipe.path.read_text().splitlines() if line and not line.startswith("#")]
    assert 6 <= len(lines) <= 22


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("command", ["solve", "evaluate"])
def test_each_asks_for_a_run_that_a_trace_can_keep(name: str, command: str) -> None:
    config = load_recipe(name).run_config(command)
    assert (config.recipe, config.command) == (name, command)
    assert config.policy == ("triad" if command == "solve" else "fixed"), "the full system, unless told otherwise"
    assert decode_config(kept(config)) == config


def kept(config: RunConfig) -> dict[str, Any]:
    """What a trace has of it."""
    return json.loads(json.dumps(asdict(config)))  # type: ignore[no-any-return]


def test_they_are_at_the_root_of_the_repository_too() -> None:
    assert sorted(path.stem for path in (ROOT / "recipes").glob("*.toml")) == recipe_names()
    assert {"cpu-demo", "h100-gpt-oss-120b", "2xh100-qwen72b-r1-32b", "4xl4", "openai-server"} == set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_each_fits_the_machine_that_it_names(name: str) -> None:
    recipe = load_recipe(name)
    if recipe.hardware is None:
        assert all(num_gpus(engine) == 0 for engine in recipe.engines)
    else:
        assert max(num_gpus(engine) for engine in recipe.engines) == recipe.hardware.num_gpus, "and uses all of it"


@pytest.mark.parametrize("name", recipe_names())
def test_an_attempt_fits_what_its_engine_can_hold(name: str) -> None:
    """Except where a model has fewer positions than others write: there an attempt ends with them."""
    config = config_of(name)
    for engine in config.engines:
        held = engine.settings.get("max_model_len")
        if held is not None and engine.model != "Qwen/Qwen2.5-Math-72B-Instruct":
            assert config.max_tokens + 3072 <= held


def test_the_contests_recipes_plan_the_time_that_teams_plan() -> None:
    for name in ("h100-gpt-oss-120b", "2xh100-qwen72b-r1-32b", "4xl4"):
        recipe = load_recipe(name)
        assert recipe.contest is not None and (recipe.contest.problems, recipe.contest.hours) == (50, 5.0)
        assert recipe.run_config("solve").budget_s == recipe.contest.budget_s == 17_400.0


def test_the_demo_is_a_run_without_a_recipe() -> None:
    without = complete_config(BY_DEFAULT, command="solve", source=None, precision_is_given=False)
    config = config_of("cpu-demo")
    assert config.engines == () and config.recipe == "cpu-demo"
    assert kept(config) == {**kept(without), "recipe": "cpu-demo"}


def test_the_common_notebooks_settings() -> None:
    config = config_of("h100-gpt-oss-120b")
    assert (config.attempts, config.temperature, config.min_p, config.stop) == (8, 1.0, 0.02, "four_equal")
    (engine,) = config.engines
    assert (engine.type, engine.model) == ("vllm", "openai/gpt-oss-120b")
    assert load_recipe("h100-gpt-oss-120b").contest.budget_s == 17_400  # type: ignore[union-attr]


def test_two_models_for_two_pillars() -> None:
    config = config_of("2xh100-qwen72b-r1-32b")
    coder, reasoner = config.engines
    assert config.pillars == ("reasoning", "code") and reasoner.pillars == ("reasoning",) and coder.pillars == ()
    assert config.model == coder.model == "Qwen/Qwen2.5-Math-72B-Instruct"
    assert reasoner.model == "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"
    for engine in config.engines:
        assert (engine.settings["quantization"], engine.settings["tensor_parallel_size"]) == ("bitsandbytes", 2)
    assert coder.settings["max_model_len"] == 4096, "all the positions that Qwen2.5-Math has"
    assert sum(engine.settings["gpu_memory_utilization"] for engine in config.engines) <= 0.95


def test_the_files_are_toml_as_anybody_reads_it() -> None:
    for path in (ROOT / "recipes").glob("*.toml"):
        assert set(tomllib.loads(path.read_text())) <= {"description", "engines", "run", "hardware", "contest"}
