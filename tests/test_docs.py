"""The documents are checked, not trusted: their commands parse, their files exist, their table is the code's."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer.main

from mathlete.cli.main import app
from mathlete.lab.mapping import mapping_of
from mathlete.model_store.store import LocalModel, ModelStore
from mathlete.sandbox.isolation import LAYERS
from test_import_table import FREE, MAY_IMPORT

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *(ROOT / "docs").glob("*.md")])


def commands(program: str) -> Iterator[tuple[str, str]]:
    """Lines that begin with `program` in console blocks or as `inline code`, with the document they stand in."""
    for document in DOCUMENTS:
        text = document.read_text()
        found = re.findall(rf"^\$ ({program} [^#\n]*)", text, re.MULTILINE)
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
    rows = re.findall(
        r"^\| `(\w+)(?:/|\.py)` \| .* \| ([^|]+) \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE
    )
    documented = {room: set(re.findall(r"\w+", allowed)) - {"core"} for room, allowed in rows}
    documented["core"] = set()
    assert documented == MAY_IMPORT
    assert FREE == {"api", "cli", "compose"}


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


@pytest.mark.model
@pytest.mark.filterwarnings("ignore")  # inspect_ai's own
def test_the_python_blocks_of_the_adapters_document_run(
    small_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("inspect_ai")
    monkeypatch.setattr(ModelStore, "ensure", lambda store, name, report=None: LocalModel(name, small_model_path, None))
    monkeypatch.chdir(tmp_path)
    Path("two.csv").write_text("id,problem,answer\na,What is $6 + 7$?,13\nb,What is $5 + 8$?,13\n")
    names = run_blocks("adapters.md")
    assert names["first"].answers.keys() == {"product", "problem-2"} and names["second"].record.finished
    assert names["text"] == names["first"].record.problems["product"].attempts[0].text
    assert names["log"].status == "success" and 0 <= names["accuracy"] <= 1


def test_the_python_blocks_of_the_sandbox_document_run() -> None:
    names = run_blocks("sandbox.md")
    assert "rlimit" in names["layers"]
    assert (
        names["statuses"] == ["ok", "timeout", "ok"] and names["last"].stdout == "42\n" or "gate" not in names["layers"]
    )


def test_the_python_blocks_of_the_statistics_document_run() -> None:
    names = run_blocks("statistics.md")
    assert names["width_paired"] < names["width_apart"] / 2 and names["found"]["gain"].low > 0
    assert names["curve"][1] == (3 / 8, 3 / 8) and names["curve"][8] == (1.0, 1.0)
    assert (names["test"].only_first, names["test"].only_second) == (2, 12)
    assert round(names["test"].p_value, 3) == 0.013
    assert round(names["effective_attempts"](8, 0.3), 1) == 2.6
    assert 1 < names["worth"] < 3 and names["nothing"].rho is None and names["nothing"].note
    assert 1 < names["voices"] < 4
    assert round(names["published"]) == 45
    runs = [size.runs for size in names["sizes"].values()]
    assert runs == sorted(runs, reverse=True) and runs[0] > 10
    assert names["two_runs"].spread == pytest.approx(names["luck"].spread(50) / 2**0.5)
    parts = names["figures"].parts
    assert [round(value, 12) for value in (parts.resolution, parts.uncertainty, names["figures"].brier)] == [
        0.09,
        0.25,
        0.16,
    ]


def test_the_python_blocks_and_the_mapping_of_the_importing_document_are_sound() -> None:
    names = run_blocks("importing.md")
    assert (names["answers"], names["correct"]) == (["72", "96"], (True, False))
    assert names["golds"] == ["18"] and "not_an_integer" in names["refused"][0]
    text = (ROOT / "docs" / "importing.md").read_text()
    (mapping,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert mapping_of(tomllib.loads(mapping), "mine").features == {"mean_logprob": ("stats.logprob",)}
    assert re.findall(r"^\| `([\w-]+)` \| ", text, re.MULTILINE) == ["nemo-skills", "lm-eval", "inspect", "table"]


def test_the_sandbox_document_names_each_layer() -> None:
    text = (ROOT / "docs" / "sandbox.md").read_text()
    assert re.findall(r"^\| `(\w+)` \| ", text, re.MULTILINE)[: len(LAYERS)] == list(LAYERS)


def test_the_help_in_the_documents_is_the_programs() -> None:
    command = [sys.executable, "-X", "utf8", str(ROOT / "docs" / "make_cli.py")]
    made = subprocess.run(command, env={}, capture_output=True, encoding="utf-8", check=True)  # no colours
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == made.stdout, "run `make docs`"
