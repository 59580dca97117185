"""`mathlete contest bundle` on the command line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from calling import Mathlete

RECIPE = """
description = "A model of nobody's."
[engines.main]
type = "vllm"
model = "{model}"
[run]
attempts = 4
[contest]
problems = 7
hours = 1
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose model is a name of a hub."""
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE.format(model="org/tiny-7b"))
    return path


def test_a_bundle_is_written_and_compared(
    mathlete: Mathlete, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATHLETE_CACHE", str(tmp_path / "cache"))
    called = mathlete("contest", "bundle", recipe, "--out", "b", "--notebook-only")
    assert called.code == 0, called.err
    assert "no packages, 1 model" in called.out and "--weights main=FOLDER" in called.out
    manifest = json.loads((tmp_path / "b" / "dataset" / "manifest.json").read_text())
    assert (manifest["num_problems"], manifest["config"]["budget_s"], manifest["config"]["attempts"]) == (7, 3000.0, 4)
    assert manifest["recipe_toml"] == recipe.read_text() and manifest["environment"]["VLLM_NO_USAGE_STATS"] == "1"
    assert "unknown until it is downloaded" in (tmp_path / "b" / "README.md").read_text()
    checked = mathlete("contest", "bundle", "--check", "b", "--json")
    assert checked.code == 0 and json.loads(checked.out)["absent"] == ["main: no hashes are known of org/tiny-7b"]
    (tmp_path / "b" / "dataset" / "recipe.toml").write_text("changed")
    checked = mathlete("contest", "bundle", "--check", "b")
    assert checked.code == 2 and "recipe.toml: it is not what the manifest says" in checked.err
    again = mathlete("contest", "bundle", recipe, "--out", "b", "--notebook-only")
    assert again.code == 2 and "is there already" in again.err


def test_weights_where_a_person_says(mathlete: Mathlete, recipe: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(100))
    called = mathlete(
        "contest", "bundle", recipe, "--out", "b", "--notebook-only", "--weights", f"main={model}", "--json"
    )
    assert called.code == 0, called.err
    assert json.loads(called.out) == {
        "bundle": "b", "wheels": 0, "wheels_here": 0, "weights": ["main"], "weights_without_hashes": [],
        "known_bytes": 104,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give either a RECIPE"),
        (("nope",), "there is no recipe 'nope'"),
        (("openai-server",), "without internet cannot reach"),
        (("tiny.toml", "--python", "python3"), "--python must be like 3.12"),
        (("tiny.toml", "--platform", "win"), "--platform must be like"),
        (("tiny.toml", "--weights", "main"), "write ENGINE=PATH"),
        (("tiny.toml", "--weights", "other=/tmp"), "no such model; there are main"),
        (("tiny.toml", "--weights", "main=/no/such"), "no file or folder /no/such"),
        (("tiny.toml", "--own-wheel", "none.whl"), "there is no such file"),
        (("tiny.toml", "--problems", "none.csv"), "there is no such file"),
        (("--check", "nowhere"), "holds no bundle"),
        (("tiny.toml", "--check", "x"), "give either a RECIPE"),
    ],
)
def test_what_is_refused(
    mathlete: Mathlete, recipe: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    called = mathlete("contest", "bundle", *arguments)
    assert called.code == 2 and words in called.err, called.err
    assert not (tmp_path / "bundle").exists()


def test_a_model_that_is_not_there(mathlete: Mathlete, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.format(model="./models/none"))
    called = mathlete("contest", "bundle", "r.toml", "--notebook-only")
    assert called.code == 2 and "say where with --weights main=PATH" in called.err


def test_a_folder_without_a_tokenizer_is_refused_before_anybody_uploads_it(
    mathlete: Mathlete, recipe: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    called = mathlete("contest", "bundle", "tiny.toml", "--notebook-only", "--weights", f"main={folder}")
    assert called.code == 2 and "has no tokenizer" in called.err and not (tmp_path / "bundle").exists()


def test_what_is_no_model_is_refused(mathlete: Mathlete, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root")
    called = mathlete("contest", "bundle", "tiny.toml", "--notebook-only", "--weights", "main=passwd")
    assert called.code == 2 and "passwd is no model's file" in called.err


def test_what_to_install(mathlete: Mathlete, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nbformat" else find(name))
    called = mathlete("contest", "bundle", "cpu-demo")
    assert called.code == 2 and "pip install 'mathlete[contest]'" in called.err
