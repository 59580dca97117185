"""`mathlete tasks check`: what becomes of each row of a file of problems. Shows; `lab.tasks` decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from mathlete.core.errors import InputError
from mathlete.core.problem import AnswerKind
from mathlete.lab.task_sources import find_source
from mathlete.lab.tasks import TaskRow, read_task_rows

app = typer.Typer(help="Check files of problems.", no_args_is_help=True)


@app.callback()
def tasks() -> None:
    """Check files of problems."""


@app.command()
def check(
    problems: Annotated[
        str,
        typer.Argument(
            metavar="PROBLEMS",
            help="A .csv, .jsonl or .parquet file, hf:OWNER/NAME, or a folder saved by datasets.",
        ),
    ],
    mapping: Annotated[
        str | None, typer.Option(help="Which columns or keys hold what: a preset's name, or a .toml file.")
    ] = None,
    low: Annotated[int, typer.Option(help="Smallest admissible answer.")] = 0,
    high: Annotated[int, typer.Option(help="Largest admissible answer.")] = 99_999,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    r"""Prove that each answer passes the verifier: written as \boxed{...}, it is found and equal to itself.

    Ends with exit code 1 when a row is refused.
    """
    if low > high:
        raise InputError(f"--low {low} is above --high {high}")
    source = find_source(problems)
    if source is None:
        raise InputError(f"{problems!r} is a statement; give a file")
    console = Console(stderr=True)
    found = read_task_rows(source, AnswerKind(low=low, high=high), mapping=mapping)
    progress = track(found, "checking", console=console, transient=True, disable=not console.is_terminal)
    rows = list(progress)
    if not rows:
        raise InputError(f"{source}: it has no rows")
    if as_json:
        typer.echo(json.dumps(_summary(rows, source), indent=2))
    else:
        _show(rows, source)
    if any(row.refused is not None for row in rows):
        raise typer.Exit(1)


def status_of(row: TaskRow) -> str:
    """One word for a row: "ok", "refused", "skipped" (it says that its answer is no integer) or "unlabelled"."""
    if row.refused is not None:
        return "refused"
    if row.is_skipped:
        return "skipped"
    return "unlabelled" if row.task is None or row.task.gold is None else "ok"


def _summary(rows: list[TaskRow], source: str | Path) -> dict[str, Any]:
    return {"source": str(source), "num_rows": len(rows), **_counts(rows), "rows": [_facts(row) for row in rows]}


def _counts(rows: list[TaskRow]) -> dict[str, int]:
    statuses = [status_of(row) for row in rows]
    return {f"num_{status}": statuses.count(status) for status in ("ok", "unlabelled", "skipped", "refused")}


def _facts(row: TaskRow) -> dict[str, Any]:
    return {
        "place": row.place,
        "id": row.id,
        "answer": None if row.gold is None else str(row.gold),
        "gold": None if row.task is None else row.task.gold,
        "status": status_of(row),
        "reason": None if row.refused is None else row.refused.reason,
    }


def _show(rows: list[TaskRow], source: str | Path) -> None:
    console = Console(soft_wrap=False)
    table = Table("row", "id", "answer", "read as", "", box=None, pad_edge=False)
    for row in rows:
        facts = _facts(row)
        reason = facts["reason"] or ("" if facts["status"] == "ok" else facts["status"])
        cells = (
            row.place.removeprefix(f"{source}, "),
            row.id or "",
            _cut(facts["answer"] or ""),
            facts["gold"] or "",
            reason,
        )
        table.add_row(*(_plain(cell) for cell in cells))
    console.print(table)
    counts = _counts(rows)
    told = f"{len(rows)} rows: " + ", ".join(
        f"{num} {name.removeprefix('num_')}" for name, num in counts.items() if num
    )
    console.print(told, highlight=False)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else "..." + line[-37:]  # a solution has its answer at the end


def _plain(text: str) -> Text:
    """Foreign text without control characters, which could write anywhere on a terminal."""
    return Text("".join(character if character.isprintable() else "\ufffd" for character in text))
