"""docs/recipes.md has each key of each section as the code has it, and its recipes can be read."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mathlete.core.errors import InputError
from mathlete.recipes.loading import contest_keys, engine_keys, hardware_keys, load_recipe, recipe_names, run_keys
from mathlete.triad.pipeline import SCORES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """docs/make_recipe_tables.py."""
    spec = importlib.util.spec_from_file_location("make_recipe_tables", ROOT / "docs" / "make_recipe_tables.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_what_comes_out(maker: ModuleType) -> None:
    text = maker.DOCUMENT.read_text(encoding="utf-8")
    assert maker.filled(text) == text, "docs/recipes.md is old: python docs/make_recipe_tables.py"


def test_each_key_has_a_row_and_each_row_says_something(maker: ModuleType) -> None:
    text = maker.DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    keys = {key for key, *_ in rows}
    for kind in ("ryanstream", "vllm", "openai_server"):
        assert set(engine_keys(kind)) <= keys
    assert set(run_keys()) | set(hardware_keys()) | set(contest_keys()) <= keys
    assert all(len(cell.strip()) > 0 for row in rows for cell in row)


def test_its_recipes_can_be_read(maker: ModuleType, tmp_path: Path) -> None:
    text = maker.DOCUMENT.read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        (tmp_path / "mine.toml").write_text(block)
        assert load_recipe(tmp_path / "mine.toml").engines


def test_it_names_each_recipe_and_each_scorer(maker: ModuleType) -> None:
    text = maker.DOCUMENT.read_text(encoding="utf-8")
    assert re.findall(r"^\| `([\w.-]+)` \| .* \| .* \|$", text, re.MULTILINE)[: len(recipe_names())]
    for name in (*recipe_names(), *SCORES):
        assert f"`{name}`" in text


def test_the_errors_that_it_shows_are_those_that_come(maker: ModuleType, tmp_path: Path) -> None:
    text = maker.DOCUMENT.read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    engine = '[engines.main]\ntype = "vllm"\nmodel = "x"\n'
    machine = '[hardware]\naccelerator = "l4-24gb"\ncount = 2\n\n'
    for recipe in (
        machine + "\n" + engine + "tensor_paralel_size = 2\n",
        machine + engine + "tensor_parallel_size = 4\n",
    ):
        path = tmp_path / "mine.toml"
        path.write_text(recipe)
        with pytest.raises(InputError) as caught:
            load_recipe(path)
        assert str(caught.value).replace(str(path), "error: mine.toml") in shown.splitlines()


def test_a_document_without_markers_is_refused(maker: ModuleType) -> None:
    with pytest.raises(SystemExit, match="the markers of 'engines' are missing"):
        maker.filled("# Recipes\n")
