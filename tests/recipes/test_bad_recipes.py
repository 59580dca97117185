"""Recipes that cannot be meant: the error says which file, line, section and key, and what would do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mathlete.core.errors import InputError
from mathlete.recipes.loading import load_recipe, recipe_names, recipe_of
from mathlete.recipes.source import RecipeSource

ENGINE = '[engines.main]\ntype = "vllm"\nmodel = "a/b"\n'
TWO = ENGINE + '[engines.other]\ntype = "vllm"\nmodel = "c/d"\n'
GPUS = '[hardware]\naccelerator = "h100-sxm-80gb"\n'

BAD = {
    "section": (ENGINE + "[rum]\nattempts = 3\n", ":4: 'rum' is no section of a recipe; did you mean run?"),
    "key at the top": ("atempts = 3\n" + ENGINE, ":1: 'atempts' is no section of a recipe; there are contest, desc"),
    "key of run": ("[run]\natempts = 3\n", ":2: [run] 'atempts' is no option of a run; did you mean attempts?"),
    "key of an engine": (
        ENGINE + "tensor_paralel_size = 2\n",
        ":4: [engines.main] 'tensor_paralel_size' is no setting of vllm; did you mean tensor_parallel_size?",
    ),
    "another engine's key": (
        '[engines.main]\ntype = "ryanstream"\nmodel = "1.5b"\nbase_url = "http://x"\n',
        ":4: [engines.main] 'base_url' is no setting of ryanstream; there are batch_invariant, device",
    ),
    "key of hardware": (ENGINE + GPUS + "gpus = 2\n", ":6: [hardware] 'gpus' is no key of [hardware]; there are"),
    "key of contest": (ENGINE + "[contest]\nhour = 5\n", ":5: [contest] 'hour' is no key of [contest]; did you mean"),
    "dotted": ("run.atempts = 3\n", ":1: [run] 'atempts' is no option"),
    "inline": (
        'engines.main = { type = "vllm", modl = "x" }\n',
        "[engines.main] 'modl' is no setting of vllm; did you",
    ),
    "text for a number": ('[run]\nattempts = "8"\n', ":2: [run] attempts must be a whole number, not '8'"),
    "fraction": ("[run]\nattempts = 8.5\n", ":2: [run] attempts must be a whole number, not 8.5"),
    "truth for a number": ("[run]\nattempts = true\n", ":2: [run] attempts must be a whole number, not True"),
    "number for text": ("[run]\npolicy = 3\n", ":2: [run] policy must be one of triad, vote"),
    "number for a list": (
        "[run]\npillars = 3\n",
        ':2: [run] pillars must be a list, each of it text in quotes, such as ["c',
    ),
    "text for a list": ('[run]\npillars = "code"\n', ":2: [run] pillars must be a list"),
    "list of numbers": (ENGINE + "pillars = [1]\n", ":4: [engines.main] pillars must be a list, each of it text"),
    "text for truth": (
        ENGINE + 'own_process = "yes"\n',
        ":4: [engines.main] own_process must be true or false, not 'yes'",
    ),
    "date": ("[run]\nmodel = 1979-05-27\n", ":2: [run] model must be text in quotes"),
    "date inside": (
        ENGINE + "speculative_config = { method = 1979-05-27 }\n",
        ":4: [engines.main] speculative_config mu",
    ),
    "infinity": ("[run]\ntemperature = inf\n", "[run] temperature must be a number, not inf"),
    "policy": ('[run]\npolicy = "vot"\n', ":2: [run] policy must be one of triad, vote"),
    "rule": ('[run]\nstop = "four"\n', ":2: [run] stop must be one of never, four_equal"),
    "range": ("[run]\nattempts = 0\n", ":2: [run] attempts must be >= 1, not 0"),
    "engine's range": (
        ENGINE + "tensor_parallel_size = 0\n",
        ":4: [engines.main] tensor_parallel_size must be >= 1, not 0",
    ),
    "embedded range": (
        '[engines.main]\ntype = "ryanstream"\nmodel = "1.5b"\nprecision = "fp64"\n',
        ":4: [engines.main] precision must be one of",
    ),
    "address": (
        '[engines.main]\ntype = "openai_server"\nmodel = "m"\nbase_url = "localhost"\n',
        ":4: [engines.main] base_url must be like http://127.0.0.1:8000/v1",
    ),
    "duration": ('[run]\nbudget = "soon"\n', ":2: [run] budget: 'soon' is not a duration; write it like 90"),
    "no duration": ("[run]\nbudget = [1]\n", ':2: [run] budget must be a time, such as "10m" or "4h50m", not [1]'),
    "no type": ('[engines.main]\nmodel = "a/b"\n', ":1: [engines.main] type is missing: one of ryanstream, vllm, op"),
    "type": (
        '[engines.main]\ntype = "vlllm"\nmodel = "a/b"\n',
        ":2: [engines.main] type cannot be 'vlllm': one of ryanstream, vllm, openai_server; did you mean vllm?",
    ),
    "no model": ('[engines.main]\ntype = "vllm"\n', ":1: [engines.main] model is missing"),
    "empty model": ('[engines.main]\ntype = "vllm"\nmodel = " "\n', ":3: [engines.main] model is empty"),
    "empty model of a run": ('[run]\nmodel = ""\n', ":2: [run] model is empty"),
    "control characters": (
        '[engines.main]\ntype = "vllm"\nmodel = "a\\u001b[31m"\n',
        ":3: [engines.main] model must have no control characters, not 'a\\x1b[31m'",
    ),
    "no threads": (
        '[engines.main]\ntype = "ryanstream"\nmodel = "1.5b"\nthreads = 0\n',
        ":4: [engines.main] threads must be >= 1, not 0",
    ),
    "a key itself": (
        '[engines.main]\ntype = "openai_server"\nmodel = "m"\napi_key_env = "sk-1234"\n',
        ":4: [engines.main] api_key_env must be the name of an environment variable, such as OPENAI_API_KEY",
    ),
    "blanks in an address": (
        '[engines.main]\ntype = "openai_server"\nmodel = "m"\nbase_url = "http://a b/v1"\n',
        ":4: [engines.main] base_url must be like http://127.0.0.1:8000/v1",
    ),
    "no table": ('engines = "vllm"\n', ":1: engines must be a section, [engines], not 'vllm'"),
    "engine without a name": (
        '[engines]\ntype = "vllm"\nmodel = "x"\n',
        ":2: [engines] type must be a table: each engine",
    ),
    "pillar": (
        TWO + 'pillars = ["reasonning"]\n',
        ":7: [engines.other] pillars may name code, reasoning",
    ),
    "two without pillars": (TWO, "[engines] engines must have exactly one without pillars"),
    "none without pillars": (
        ENGINE + 'pillars = ["code"]\n',
        "[engines] engines must have exactly one without pillars",
    ),
    "one pillar twice": (
        TWO + 'pillars = ["code"]\n[engines.third]\ntype = "vllm"\nmodel = "e"\npillars = ["code"]\n',
        "[engines] engines may share no pillar, and code is written by several",
    ),
    "model in run": (
        ENGINE + '[run]\nmodel = "x"\n',
        ":5: [run] model belongs to an engine: put it into [engines.main]",
    ),
    "precision in run": (
        ENGINE + '[run]\nprecision = "int4"\n',
        ":5: [run] precision belongs to an engine: put it into [engines.main]",
    ),
    "too few GPUs": (
        ENGINE + "tensor_parallel_size = 4\n" + GPUS + "count = 2\n",
        ":1: [engines.main] its layout takes 4 GPUs, and [hardware] has 2 (count 2, hosts 1)",
    ),
    "too few GPUs in a pipeline": (
        ENGINE + "tensor_parallel_size = 4\npipeline_parallel_size = 2\n" + GPUS + "count = 4\n",
        "its layout takes 8 GPUs, and [hardware] has 4 (count 4, hosts 1)",
    ),
    "hosts without ray": (
        ENGINE + "tensor_parallel_size = 8\n" + GPUS + "count = 4\nhosts = 2\n",
        'its layout takes 8 GPUs, and a host has 4: for several hosts say distributed_executor_backend = "ray"',
    ),
    "memory twice": (
        ENGINE + 'gpu_memory_utilization = 0.6\n[engines.b]\ntype = "vllm"\nmodel = "c"\npillars = ["reasoning"]\n'
        "gpu_memory_utilization = 0.5\n" + GPUS,
        "engines share the first GPUs, and their gpu_memory_utilization adds up to 0.6 (main) + 0.5 (b) = 1.1, which",
    ),
    "no GPU": (ENGINE + GPUS + "count = 0\n", ":6: [hardware] count must be from 1"),
    "GPU": (
        ENGINE + '[hardware]\naccelerator = "h100"\n',
        ":5: [hardware] accelerator 'h100' is not known; known are h1",
    ),
    "no accelerator": (ENGINE + "[hardware]\ncount = 2\n", ":4: [hardware] accelerator is missing"),
    "hours": (ENGINE + "[contest]\nhours = 0\n", ":5: [contest] hours must be > 0"),
    "reserve": (ENGINE + '[contest]\nhours = 1\nreserve = "2h"\n', "[contest] reserve must leave some of the 1 hours"),
    "policy's option": ('[run]\npolicy = "vote"\nsecond_round = 2\n', ":3: [run] second_round is for --policy triad"),
    "description": ("description = 3\n" + ENGINE, ":1: description must be text in quotes, not 3"),
    "toml": ("[run]\nattempts = \n", ": not TOML: Invalid value (at line 2, column 12)"),
    "twice": ("[run]\nattempts = 1\nattempts = 2\n", "not TOML: Cannot overwrite a value (at line 3"),
    "empty": ("", "it says nothing: a recipe has [engines.NAME] or [run]"),
    "comments only": ("# to do\n", "it says nothing"),
    "deep": ("x = " + "[" * 100_000 + "]" * 100_000 + "\n", "not TOML"),
}


def test_a_key_in_the_place_of_its_variable_is_not_told() -> None:
    with pytest.raises(InputError) as caught:
        recipe_of(RecipeSource("mine.toml", BAD["a key itself"][0]), Path("mine.toml"))
    assert "sk-1234" not in str(caught.value)


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_meant_is_refused_with_its_place(name: str, tmp_path: Path) -> None:
    text, complaint = BAD[name]
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(str(path))
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 1200 and "\n" not in str(caught.value)


def test_what_is_no_recipe_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    large = tmp_path / "large.toml"
    large.write_text("#" * (1 << 20) + "\n")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"[run]\n# caf\xe9\nattempts = 3\n")
    for path, complaint in (
        (folder, "folder.toml: a folder, and a recipe is a .toml file"),
        (large, "large.toml: longer than 1024 KiB; that is no recipe"),
        (latin, "latin.toml:2: not UTF-8 text; save the file as UTF-8"),
        (tmp_path / "none.toml", "none.toml: cannot be read (No such file or directory)"),
        ("cpu-dmo", "there is no recipe 'cpu-dmo'; did you mean cpu-demo? there are 2xh100-qwen72b-r1-32b, 4xl4, cpu"),
        ("", "a folder, and a recipe is a .toml file"),
    ):
        with pytest.raises(InputError) as caught:
            load_recipe(path)
        assert complaint in str(caught.value)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(ENGINE)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("permissions do not apply to this user")
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(path)


def test_control_characters_of_a_file_stay_in_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('"\\u001b[31m" = 3\n')
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert "\x1b" not in str(caught.value)


@settings(max_examples=300)
@given(
    name=st.sampled_from(recipe_names()),
    place=st.floats(0, 1),
    num_cut=st.integers(0, 12),
    put=st.one_of(
        st.sampled_from(
            ["=", "[", "]", '"', "\n", "-1", "1e999", "true", "[]", "{}", "0x", "nan", "1979-05-27", "\x00", "~x"]
        ),
        st.text(max_size=6),
    ),
)
def test_a_damaged_recipe_is_read_or_refused(name: str, place: float, num_cut: int, put: str) -> None:
    recipe = load_recipe(name)
    text = recipe.path.read_text()
    begin = int(place * len(text))
    damaged = RecipeSource("mine.toml", text[:begin] + put + text[begin + num_cut :])
    try:
        found = recipe_of(damaged, recipe.path)
    except InputError as error:
        assert str(error).startswith("mine.toml") and len(str(error)) < 2000
    else:
        assert found.run_config("solve", check_models=False).recipe == name


@pytest.mark.parametrize("path", ["a\x00.toml", "~nobody-here/x.toml", "~nobody-here"])
def test_odd_paths(path: str) -> None:
    with pytest.raises(InputError):
        load_recipe(path)
