"""What `mathlete replay --redecide` does: recorded runs against their own policy.

Knows the terminal; what is compared is in `lab.redecide` and `lab.timeline_replay`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from mathlete.cli.replay_running import ending_in_order
from mathlete.core.errors import MathleteError
from mathlete.lab.redecide import redecide
from mathlete.lab.run_finding import FoundRun, find_runs
from mathlete.lab.timeline_replay import replay_timeline

UNFAITHFUL_EXIT_CODE = 1
_RUNS_DIR = Path("runs")
_MAX_SHOWN = 20


def redecide_runs(names: Sequence[Path], *, as_json: bool) -> None:
    """Decide each run again, hold it again, and print what is not as it was recorded.

    Raises:
        InputError: there is no such run, or it was recorded before decisions told what they saw.
        StorageError: a store cannot be read.
        typer.Exit: with `UNFAITHFUL_EXIT_CODE` when something is not as it was recorded.
    """
    console = Console(stderr=True)
    found: list[dict[str, Any]] = []
    with ending_in_order(console):
        for run in [run for name in names for run in find_runs(str(name), _RUNS_DIR)]:
            with console.status(f"deciding {run.id} again"):
                told = _redecide(run)
            found.append(told)
            if not as_json:
                _show(run, told)
    if as_json:
        typer.echo(json.dumps(found[0] if len(found) == 1 else found, indent=2))
    if not all(told["is_faithful"] for told in found):
        raise typer.Exit(UNFAITHFUL_EXIT_CODE)


def _redecide(run: FoundRun) -> dict[str, Any]:
    try:
        with run.read() as store:
            again = redecide(store.events())
            held = replay_timeline(store.events())
    except MathleteError as error:
        error.add_note(f"This is about the run {run.id}.")
        raise
    return {
        "run": run.id,
        "is_faithful": again.is_faithful,
        "redecided": again.as_dict(),
        "held_again": held.as_dict(),
        "lines": [*again.lines(), *held.lines()],
    }


def _show(run: FoundRun, told: dict[str, Any]) -> None:
    lines = told["lines"]
    typer.echo(f"{run.id}:")
    for line in lines[:_MAX_SHOWN]:
        typer.echo(f"  {line}")
    if len(lines) > _MAX_SHOWN:
        typer.echo(f"  {len(lines) - _MAX_SHOWN} more; all are in --json")
    if not told["held_again"]["is_faithful"] and told["is_faithful"]:
        typer.echo("  each decision is as recorded; what differs when held again hung on the clock at the time")
