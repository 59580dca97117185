"""The documents are checked, not trusted: their commands parse, their files exist, their table is the code's."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer.main

from mathlete.cli.main import app
from mathlete.model_store.store import LocalModel, ModelStore
from mathlete.sandbox.isolation import LAYERS
from test_import_table import FREE, MAY_IMPORT

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *(ROOT / "docs").glob("*.md")])


def commands(program: str) -> Iterator[tuple[str, str]]:
    """Lines that begin with `program` in console blocks or as `inline code`, with the document they stand in."""
    for document in DOCUMENTS:
        text = document.read_text()
        found = re.findall(rf"^\$ ({program} .*)$", text, re.MULTILINE)
        found += re.findall(rf"^    ({program} [^#\n]*)", text, re.MULTILINE)
        yield from ((document.name, line.strip()) for line in found)


def parse(arguments: list[str]) -> None:
    """Parse as the command line would, down to the subcommand; runs nothing."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *arguments = arguments
        command = command.commands[name]
    command.make_context(command.name, arguments)


@pytest.mark.parametrize(("document", "line"), list(commands("mathlete")))
def test_each_mathlete_command_in_the_documents_parses(document: str, line: str) -> None:
    parse(shlex.split(line)[1:])


def test_the_documents_show_the_main_commands() -> None:
    shown = {shlex.split(line)[1] for _, line in commands("mathlete")}
    assert {"solve", "evaluate", "models", "bench"} <= shown


@pytest.mark.parametrize(("document", "line"), list(commands("make")))
def test_each_make_target_in_the_documents_exists(document: str, line: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert line.split()[1] in targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_architecture_shows_the_import_table_that_is_enforced() -> None:
    rows = re.findall(r"^\| `(\w+)/` \| .* \| ([^|]+) \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    documented = {room: set(re.findall(r"\w+", allowed)) - {"core"} for room, allowed in rows}
    documented["core"] = set()
    assert documented == MAY_IMPORT
    assert FREE == {"cli", "compose"}


def test_architecture_names_files_that_exist() -> None:
    for name in re.findall(r"`((?:\w+/)+\w+\.(?:py|txt))`", (ROOT / "ARCHITECTURE.md").read_text()):
        places = [ROOT / name, ROOT / "src/mathlete" / name, ROOT / "src/mathlete/ryanstream" / name]
        assert any(place.exists() for place in places), name


@pytest.mark.parametrize(
    "script, picture",
    [("make_engine_picture.py", "engine-step.svg"), ("make_selection_picture.py", "selection-calibration.svg")],
)
def test_a_picture_is_its_scripts(script: str, picture: str) -> None:
    made = subprocess.run([sys.executable, ROOT / "docs" / script], capture_output=True, check=True)
    assert (ROOT / "docs" / picture).read_bytes() == made.stdout, "run `make docs`"
    ElementTree.fromstring(made.stdout)


def test_the_engine_document_names_each_setting_with_its_default() -> None:
    from mathlete.ryanstream.engine_config import EngineConfig

    text = (ROOT / "docs" / "engine.md").read_text()
    shown = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \| ", text, re.MULTILINE))
    settings = {field.name: field.default for field in dataclasses.fields(EngineConfig)}
    assert {name: ast.literal_eval(default) for name, default in shown.items()} == settings


@pytest.mark.model
def test_the_python_blocks_of_the_engine_document_run(small_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelStore, "ensure", lambda store, name: LocalModel(name, small_model_path, None))
    names = run_blocks("engine.md")
    assert len(names["texts"]) == 4 and any("7" in text for text in names["texts"].values())
    assert len(names["confident"].top_logprobs) == 4 and len(names["first_place"]) == 3
    assert all(value > 0 for value in names["confidence"])
    assert len(names["digits"]) == 3 and names["end"].reason == "stop"
    assert names["vectors"].shape[0] == 2
    assert names["num_free"] == names["num_blocks"]
    assert names["alone"] == names["in_company"] or names["loaded"].kernels != "native"
    assert "takes fewer than 512" in names["refusal"]


def run_blocks(name: str) -> dict[str, Any]:
    """The names that the Python blocks of a document leave behind."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / name).read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, f"docs/{name}", "exec"), names)
    return names


@pytest.mark.model
def test_the_python_blocks_of_the_other_documents_run(small_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelStore, "ensure", lambda store, name: LocalModel(name, small_model_path, None))
    names = run_blocks("speculation.md")
    assert names["guessed"] == names["plain"] or names["loaded"].kernels != "native"
    assert names["counts"].num_tokens == 160
    names = run_blocks("proof-sampler.md")
    assert names["right"] and names["wrong"] == (False, False)
    assert sorted(verdict for _, verdict in names["verdicts"]) == ["PROVED", "REFUTED"]


def test_the_python_blocks_of_the_sandbox_document_run() -> None:
    names = run_blocks("sandbox.md")
    assert "rlimit" in names["layers"]
    assert (
        names["statuses"] == ["ok", "timeout", "ok"] and names["last"].stdout == "42\n" or "gate" not in names["layers"]
    )


def test_the_sandbox_document_names_each_layer() -> None:
    text = (ROOT / "docs" / "sandbox.md").read_text()
    assert re.findall(r"^\| `(\w+)` \| ", text, re.MULTILINE)[: len(LAYERS)] == list(LAYERS)


def test_the_help_in_the_documents_is_the_programs() -> None:
    command = [sys.executable, "-X", "utf8", str(ROOT / "docs" / "make_cli.py")]
    made = subprocess.run(command, env={}, capture_output=True, encoding="utf-8", check=True)  # no colours
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == made.stdout, "run `make docs`"
