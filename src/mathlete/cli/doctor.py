"""`mathlete doctor`: what this machine offers, what is missing, and how to get it. Shows what `examination` found."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from mathlete.cli.examination import Examination, Judgment, examine
from mathlete.model_store.store import ModelStore

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

_STYLES: dict[Judgment, str] = {"ok": "green", "warning": "yellow", "missing": "red"}


def doctor(as_json: AsJson = False) -> None:
    """Tell which isolation is in force, which kernels and models there are, and what is missing.

    Each line is judged ok, warning or missing; most of what may be missing is not needed. The exit code is 0 unless
    solving cannot work at all.
    """
    found = examine(ModelStore())
    if as_json:
        shown = {"can_solve": found.can_solve, "isolation": found.isolation}
        typer.echo(json.dumps({**shown, "findings": [asdict(finding) for finding in found.findings]}, indent=2))
    else:
        show(found, Console(soft_wrap=True, highlight=False))
    if not found.can_solve:
        raise typer.Exit(1)


def show(found: Examination, console: Console) -> None:
    """The findings for a person: a heading a part, a line a thing, and below it what to do."""
    part = ""
    for finding in found.findings:
        if finding.part != part:
            part = finding.part
            console.print(Text(part, "bold"))
        judgment = (f"  {finding.judgment:<8}", _STYLES[finding.judgment])
        console.print(Text.assemble(judgment, f"{finding.name}: {finding.found}"))
        if finding.remedy:
            console.print(Text(f"          {finding.remedy}", "dim"))
    if not found.can_solve:
        console.print(Text("nothing can be solved here yet", "bold red"))
