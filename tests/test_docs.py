"""The documents are checked, not trusted: their commands parse, their files exist, their table is the code's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mathlete.cli.main import app
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
    assert {"solve", "evaluate", "models"} <= shown


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


def test_the_help_in_the_documents_is_the_programs() -> None:
    command = [sys.executable, "-X", "utf8", str(ROOT / "docs" / "make_cli.py")]
    made = subprocess.run(command, env={}, capture_output=True, encoding="utf-8", check=True)  # no colours
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == made.stdout, "run `make docs`"
