"""Prints docs/cli.md: the help of every command, as the command line shows it. For `make docs`, and for the tests."""

from __future__ import annotations

from typing import Any

import typer.main
from typer.testing import CliRunner

from mathlete.cli.main import app

HEAD = "# The command line\n\nMade by `make docs` from the program itself; a test compares the two.\n"


def commands(command: Any, name: str) -> list[str]:
    """A command and all below it, by what is typed."""
    below = getattr(command, "commands", {})
    return [name, *(line for sub, child in below.items() for line in commands(child, f"{name} {sub}"))]


def document() -> str:
    """The whole of docs/cli.md."""
    parts = [HEAD]
    for line in commands(typer.main.get_command(app), "mathlete"):
        arguments = [*line.split()[1:], "--help"]
        shown = CliRunner().invoke(app, arguments, prog_name="mathlete", env={"COLUMNS": "100", "TERM": "dumb"})
        assert shown.exit_code == 0, shown.output
        text = "\n".join(row.rstrip() for row in shown.output.strip("\n").splitlines())
        parts.append(f"\n## {line}\n\n```text\n{text}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    print(document(), end="")
